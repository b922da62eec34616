#include "core/kernels/elementwise.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"

namespace carousel {
namespace {

using testing::Bench;
using testing::expect_cuda_matches_cpu;
using testing::kGpu;

// Whole vectors, ragged ends, less than one vector, nothing.
const std::vector<std::int64_t> kSizes = {0, 1, 7, 8, 2049, 70000};

TEST(CudaElementwise, AddScaleAndAccumulateMatchTheCpu) {
  CAROUSEL_REQUIRE_CUDA();
  for (const std::int64_t n : kSizes) {
    expect_cuda_matches_cpu([n](const Bench& bench) {
      const Tensor a = bench.input({n}, 1);
      const Tensor b = bench.input({n}, 2);
      const Tensor sum = bench.output({n});
      const Tensor scaled = bench.output({n});
      const Tensor total = bench.wide_input({n}, 3);
      add_fwd(bench.device(), {a, b, sum});
      scale(bench.device(), {a, scaled, -1.7});
      accumulate(bench.device(), {b, total});
      return std::vector<Tensor>{sum, scaled, total};
    });
  }
}

TEST(CudaElementwise, OddAddressesAreFine) {
  CAROUSEL_REQUIRE_CUDA();
  expect_cuda_matches_cpu([](const Bench& bench) {
    const Tensor a = bench.input({1001}, 1).range(1, {1000});
    const Tensor out = bench.output({1003});
    add_fwd(bench.device(), {a, a, out.range(3, {1000})});
    const Tensor dropped = bench.output({1001});
    dropout(bench.device(), {a, dropped.range(1, {1000}), 0.3, {1, 2, 3}});
    return std::vector<Tensor>{out.range(3, {1000}), dropped.range(1, {1000})};
  });
}

TEST(CudaElementwise, CastsRoundAsTheCpuDoes) {
  CAROUSEL_REQUIRE_CUDA();
  for (const std::int64_t n : kSizes) {
    const Tensor x = testing::random_normal<float>({n}, 5);
    const Tensor narrow = Tensor::empty({n}, DType::kBF16);
    cast(kCpu, {x, narrow});
    const Tensor gpu_narrow = Tensor::empty({n}, DType::kBF16, kGpu);
    const Tensor gpu_wide = Tensor::empty({n}, DType::kF32, kGpu);
    cast(kGpu, {x.to(kGpu), gpu_narrow});
    cast(kGpu, {gpu_narrow, gpu_wide});
    EXPECT_EQ(testing::bits(gpu_narrow), testing::bits(narrow));
    EXPECT_EQ(testing::to_doubles(gpu_wide), testing::to_doubles(narrow));
  }
}

TEST(CudaElementwise, FillReachesEveryElement) {
  CAROUSEL_REQUIRE_CUDA();
  const Tensor t = Tensor::empty({1037}, DType::kBF16, kGpu);
  fill(kGpu, {t, 1.5});
  EXPECT_EQ(testing::to_doubles(t), std::vector<double>(1037, 1.5));
}

TEST(CudaElementwise, DropoutDrawsTheCpusNumbers) {
  CAROUSEL_REQUIRE_CUDA();
  for (const std::int64_t n : kSizes) {
    const Bench cpu(kCpu, DType::kF32);
    const Bench gpu(kGpu, DType::kF32);
    const RandomKey key{0x123456789abcdefull, 17, 4};
    const Tensor expected = cpu.output({n});
    const Tensor got = gpu.output({n});
    dropout(kCpu, {cpu.input({n}, 1), expected, 0.25, key});
    dropout(kGpu, {gpu.input({n}, 1), got, 0.25, key});
    EXPECT_EQ(testing::to_doubles(got), testing::to_doubles(expected));
  }
}

TEST(CudaElementwise, Float64IsRefused) {
  CAROUSEL_REQUIRE_CUDA();
  const Tensor t = Tensor::zeros({2}, DType::kF64, kGpu);
  EXPECT_THROW(add_fwd(kGpu, {t, t, t}), InternalError);
}

}  // namespace
}  // namespace carousel
