// The registration functions of the CPU kernels, one a file.
#pragma once

namespace carousel::cpu {

void register_elementwise();
void register_matmul();
void register_optimizer();

}  // namespace carousel::cpu
