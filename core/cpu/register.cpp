#include "core/kernels/register.h"

#include "core/cpu/kernels.h"

namespace carousel {

void register_cpu_kernels() {
  cpu::register_elementwise();
  cpu::register_matmul();
  cpu::register_optimizer();
}

}  // namespace carousel
