// main() of every test program: kernels registered, new memory poisoned with NaN; or, under
// CAROUSEL_MEMORY_CHECK=1, every block its own and uninitialised, as memory checkers want it.
#include <gtest/gtest.h>

#include "core/base/log.h"
#include "core/kernels/register.h"
#include "core/tensor/allocator.h"
#include "layers/register.h"
#include "tests/support/checker.h"

/// Read by AddressSanitizer where it is linked in: allocations that are too large return null, as
/// they do without it, so that our own errors are tested.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  carousel::log::default_logger();  // made before there are threads, as in the program
  carousel::register_cpu_kernels();
  carousel::register_cuda_kernels();
  carousel::register_layer_cpu_kernels();
  carousel::register_layer_cuda_kernels();
  const bool checking = carousel::testing::under_checker();
  carousel::set_memory_cache(!checking);
  carousel::set_poison_new_memory(!checking);
  return RUN_ALL_TESTS();
}
