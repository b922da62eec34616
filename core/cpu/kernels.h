// The registration functions of the CPU kernels, one a file.
#pragma once

namespace carousel::cpu {

void register_activation();
void register_conv();
void register_cross_entropy();
void register_elementwise();
void register_embedding();
void register_gate_linear();
void register_headwise();
void register_matmul();
void register_norm();
void register_optimizer();

}  // namespace carousel::cpu
