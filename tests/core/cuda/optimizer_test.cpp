#include "core/kernels/optimizer.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"

namespace carousel {
namespace {

using testing::Bench;
using testing::kGpu;

TEST(CudaOptimizer, SumOfSquaresMatchesTheCpuAndRepeats) {
  CAROUSEL_REQUIRE_CUDA();
  for (const std::int64_t n : {1ll, 3ll, 1000ll, 1000003ll}) {
    for (const std::int64_t offset : {0ll, 1ll}) {
      double sums[3];
      for (int i = 0; i < 3; ++i) {
        const Bench bench(i == 0 ? kCpu : kGpu, DType::kF32);
        const Tensor out = Tensor::empty({}, DType::kF64, bench.device());
        sum_of_squares(bench.device(), {bench.input({n + 1}, 1).range(offset, {n}), out});
        sums[i] = out.item();
      }
      EXPECT_NEAR(sums[1], sums[0], 1e-12 * sums[0]);
      EXPECT_EQ(sums[2], sums[1]);
    }
  }
}

struct Arenas {
  Tensor master, m, v, compute;
};

// Two steps over segments with gaps, ragged ends and more than one launch's worth of them.
Arenas run_adamw(Device device, double clip, double norm2) {
  const Bench bench(device, DType::kF32);
  std::vector<AdamWSegment> segments;
  std::int64_t end = 0;
  for (int i = 0; i < 150; ++i) {
    const std::int64_t begin = (end + 63) / 64 * 64 + (i % 3 == 0 ? 64 : 0);
    end = begin + 1 + philox_word({11, 0, 0}, static_cast<std::uint64_t>(i)) % 9000;
    segments.push_back({begin, end, i % 2 == 0 ? 0.1 : 0.0});
  }
  const Shape shape{end + 64};
  Arenas a{bench.input(shape, 1), bench.input(shape, 2, 0.1), bench.input(shape, 3, 0.01, 0.1),
           Bench(device, DType::kBF16).input(shape, 4)};
  for (std::int64_t step = 1; step <= 2; ++step) {
    adamw(device, {.master = a.master,
                   .grad = bench.input(shape, 5),
                   .m = a.m,
                   .v = a.v,
                   .compute = a.compute,
                   .segments = segments,
                   .grad_norm2 = Tensor::from<double>(std::vector<double>{norm2}, {}, device),
                   .clip = clip,
                   .lr = 1e-2,
                   .step = step});
  }
  return a;
}

TEST(CudaOptimizer, AdamWMatchesTheCpu) {
  CAROUSEL_REQUIRE_CUDA();
  for (const double clip : {0.0, 0.5}) {
    const Arenas want = run_adamw(kCpu, clip, 9.0);
    const Arenas got = run_adamw(kGpu, clip, 9.0);
    EXPECT_LE(testing::relative_error(got.master, want.master), 1e-7);
    EXPECT_LE(testing::relative_error(got.m, want.m), 1e-7);
    EXPECT_LE(testing::relative_error(got.v, want.v), 1e-7);
    // A master on a rounding boundary may round the other way.
    EXPECT_LE(testing::relative_error(got.compute, want.compute), 1e-4);
    EXPECT_EQ(testing::bits(got.master), testing::bits(run_adamw(kGpu, clip, 9.0).master));
  }
}

TEST(CudaOptimizer, AdamWWritesNothingUnderANonFiniteNorm) {
  CAROUSEL_REQUIRE_CUDA();
  const Bench bench(kGpu, DType::kF32);
  for (const double norm2 : {static_cast<double>(INFINITY), static_cast<double>(NAN)}) {
    const Arenas got = run_adamw(kGpu, 1.0, norm2);
    EXPECT_EQ(testing::bits(got.master), testing::bits(bench.input(got.master.shape(), 1)));
    EXPECT_EQ(testing::bits(got.m), testing::bits(bench.input(got.m.shape(), 2, 0.1)));
  }
}

}  // namespace
}  // namespace carousel
