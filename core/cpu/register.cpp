#include "core/kernels/register.h"

#include "core/cpu/kernels.h"

namespace carousel {

void register_cpu_kernels() {
  cpu::register_activation();
  cpu::register_conv();
  cpu::register_cross_entropy();
  cpu::register_elementwise();
  cpu::register_embedding();
  cpu::register_gate_linear();
  cpu::register_headwise();
  cpu::register_matmul();
  cpu::register_norm();
  cpu::register_optimizer();
}

}  // namespace carousel
