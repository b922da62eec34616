// main() of every test program: kernels registered, new memory poisoned with NaN.
#include <gtest/gtest.h>

#include "core/kernels/register.h"
#include "core/tensor/allocator.h"
#include "layers/register.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  carousel::register_cpu_kernels();
  carousel::register_cuda_kernels();
  carousel::register_layer_cpu_kernels();
  carousel::register_layer_cuda_kernels();
  carousel::set_poison_new_memory(true);
  return RUN_ALL_TESTS();
}
