// The registration functions of the sLSTM cell's CPU kernels, one a file.
#pragma once

namespace carousel::slstm {

void register_cpu_forward();
void register_cpu_backward();

}  // namespace carousel::slstm
