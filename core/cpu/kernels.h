// The registration functions of the CPU kernels, one a file.
#pragma once

namespace carousel::cpu {

void register_elementwise();
void register_matmul();

}  // namespace carousel::cpu
