#include "core/kernels/activation.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"

namespace carousel {
namespace {

using testing::Bench;
using testing::expect_cuda_matches_cpu;

// The hardware's 2^x is good to a few ulp.
constexpr double kSlack = 2e-6;
const std::vector<std::int64_t> kSizes = {1, 9, 4096, 10007};

TEST(CudaActivation, SoftCapMatchesTheCpu) {
  CAROUSEL_REQUIRE_CUDA();
  for (const std::int64_t n : kSizes) {
    expect_cuda_matches_cpu(
        [n](const Bench& bench) {
          const Tensor y = bench.output({n});
          const Tensor dx = bench.output({n});
          soft_cap_fwd(bench.device(), {bench.input({n}, 1, 20.0), y, 15.0});
          soft_cap_bwd(bench.device(), {bench.input({n}, 2, 5.0), bench.input({n}, 3), dx, 15.0});
          return std::vector<Tensor>{y, dx};
        },
        kSlack);
  }
}

TEST(CudaActivation, GatedProductsMatchTheCpu) {
  CAROUSEL_REQUIRE_CUDA();
  for (const Activation activation : {Activation::kSilu, Activation::kGelu, Activation::kSigmoid}) {
    for (const std::int64_t n : kSizes) {
      expect_cuda_matches_cpu(
          [&](const Bench& bench) {
            const Tensor gate = bench.input({n}, 1, 3.0);
            const Tensor up = bench.input({n}, 2);
            const Tensor y = bench.output({n});
            const Tensor dgate = bench.output({n});
            const Tensor dup = bench.output({n});
            gated_fwd(bench.device(), {gate, up, y, activation});
            gated_bwd(bench.device(), {gate, up, bench.input({n}, 3), dgate, dup, activation});
            return std::vector<Tensor>{y, dgate, dup};
          },
          kSlack);
    }
  }
}

TEST(CudaActivation, SaturatesWithoutNaN) {
  CAROUSEL_REQUIRE_CUDA();
  const Bench bench(testing::kGpu, DType::kF32);
  const std::vector<float> extremes{-INFINITY, -1e30f, -100.0f, 100.0f, 1e30f};
  const Tensor x = Tensor::from<float>(extremes, {5}, testing::kGpu);
  const Tensor y = bench.output({5});
  soft_cap_fwd(testing::kGpu, {x, y, 15.0});
  const auto capped = y.to_vector<float>();
  for (std::size_t i = 0; i < 5; ++i)
    EXPECT_NEAR(capped[i], 15 * std::tanh(extremes[i] / 15), 2e-5);
  gated_fwd(testing::kGpu, {x, Tensor::from<float>(std::vector<float>(5, 1.0f), {5}, testing::kGpu),
                            y, Activation::kSigmoid});
  const auto sigma = y.to_vector<float>();
  EXPECT_EQ(sigma[0], 0.0f);
  EXPECT_EQ(sigma[1], 0.0f);
  EXPECT_EQ(sigma[4], 1.0f);
}

}  // namespace
}  // namespace carousel
