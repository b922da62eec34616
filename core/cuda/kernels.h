// The registration functions of the CUDA kernels, one a file.
#pragma once

namespace carousel::cuda {

void register_activation();
void register_columns();
void register_conv();
void register_cross_entropy();
void register_elementwise();
void register_embedding();
void register_gate_linear();
void register_headwise();
void register_matmul();
void register_norm_backward();
void register_norm_forward();
void register_optimizer();
void register_reduce();
void register_sums();

}  // namespace carousel::cuda
