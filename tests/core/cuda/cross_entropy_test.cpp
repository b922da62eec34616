#include "core/kernels/cross_entropy.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"

namespace carousel {
namespace {

using testing::Bench;
using testing::expect_cuda_matches_cpu;
using testing::kGpu;

std::vector<std::int32_t> some_targets(std::int64_t n, std::int64_t vocabulary) {
  std::vector<std::int32_t> targets(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < targets.size(); ++i) {
    targets[i] = i % 5 == 3 ? kIgnoreTarget
                            : static_cast<std::int32_t>(philox_word({3, 0, 0}, i) %
                                                        static_cast<std::uint32_t>(vocabulary));
  }
  return targets;
}

TEST(CudaCrossEntropy, MatchesTheCpuInBothDirections) {
  CAROUSEL_REQUIRE_CUDA();
  for (const double cap : {0.0, 30.0}) {
    for (const Shape& shape : {Shape{1, 1}, Shape{7, 3}, Shape{40, 65}, Shape{33, 1001},
                               Shape{6, 50304}, Shape{3, 70001}}) {
      SCOPED_TRACE(shape.to_string());
      expect_cuda_matches_cpu(
          [&](const Bench& bench) {
            const std::int64_t n = shape[0];
            const Tensor logits = bench.input(shape, 1, 4.0);
            const Tensor target = bench.integers(some_targets(n, shape[1]));
            const Tensor loss = bench.wide_output({n});
            const Tensor lse = bench.wide_output({n});
            const Tensor dlogits = bench.output(shape);
            cross_entropy_fwd(bench.device(), {logits, target, loss, lse, {}, cap});
            cross_entropy_bwd(bench.device(),
                              {logits, target, lse, bench.wide_input({n}, 2), dlogits, cap});
            return std::vector<Tensor>{loss, lse, dlogits};
          },
          4e-6, 4e-6);
    }
  }
}

TEST(CudaCrossEntropy, WorksInPlaceAndCountsHits) {
  CAROUSEL_REQUIRE_CUDA();
  const std::int64_t n = 50;
  const Bench cpu(kCpu, DType::kF32);
  const Bench gpu(kGpu, DType::kF32);
  std::vector<std::uint8_t> hits[2];
  std::vector<double> gradients[2];
  int which = 0;
  for (const Bench& bench : {cpu, gpu}) {
    const Tensor logits = bench.input({n, 3}, 1, 2.0);
    const Tensor target = bench.integers(some_targets(n, 3));
    const Tensor lse = bench.wide_output({n});
    const Tensor correct = Tensor::empty({n}, DType::kU8, bench.device());
    cross_entropy_fwd(bench.device(), {logits, target, bench.wide_output({n}), lse, correct, 0.0});
    cross_entropy_bwd(bench.device(), {logits, target, lse, bench.wide_input({n}, 2), logits, 0.0});
    hits[which] = correct.to_vector<std::uint8_t>();
    gradients[which++] = testing::to_doubles(logits);
  }
  EXPECT_EQ(hits[1], hits[0]);
  EXPECT_LE(testing::relative_error(gradients[1], gradients[0]), 2e-6);
}

TEST(CudaCrossEntropy, CountsTheFirstOfTheLargestLogitsAsCorrect) {
  CAROUSEL_REQUIRE_CUDA();
  for (const std::int64_t vocab : {5, 700, 20011}) {
    for (const double cap : {0.0, 30.0}) {
      // Row r: the largest value at r, and again at the end; the target is one of them.
      const std::int64_t n = 4;
      std::vector<float> logits(static_cast<std::size_t>(n * vocab), -1.0f);
      std::vector<std::int32_t> target;
      for (std::int64_t r = 0; r < n; ++r) {
        for (const std::int64_t at : {r, vocab - 1}) {
          logits[static_cast<std::size_t>(r * vocab + at)] = 2.0f;
        }
        target.push_back(static_cast<std::int32_t>(r % 2 == 0 ? r : vocab - 1));
      }
      target[3] = static_cast<std::int32_t>(vocab / 2);  // one that is not the largest
      const Tensor correct = Tensor::from<std::uint8_t>(std::vector<std::uint8_t>(4, 9), {n}, kGpu);
      cross_entropy_fwd(kGpu, {Tensor::from<float>(logits, {n, vocab}, kGpu),
                               Tensor::from<std::int32_t>(target, {n}, kGpu),
                               Tensor::empty({n}, DType::kF32, kGpu),
                               Tensor::empty({n}, DType::kF32, kGpu), correct, cap});
      EXPECT_EQ(correct.to_vector<std::uint8_t>(), (std::vector<std::uint8_t>{1, 0, 1, 0}))
          << vocab;
    }
  }
}

TEST(CudaCrossEntropy, ImpossibleTokensAndNaNAreNotMixedUp) {
  CAROUSEL_REQUIRE_CUDA();
  std::vector<float> logits(2 * 40, -INFINITY);
  logits[7] = 1.0f;
  logits[31] = 1.0f;
  logits[40 + 3] = NAN;
  const Tensor lse = Tensor::empty({2}, DType::kF32, kGpu);
  const Tensor loss = Tensor::empty({2}, DType::kF32, kGpu);
  cross_entropy_fwd(kGpu, {Tensor::from<float>(logits, {2, 40}, kGpu),
                           Tensor::from<std::int32_t>(std::vector<std::int32_t>{7, 7}, {2}, kGpu),
                           loss,
                           lse,
                           {},
                           0.0});
  EXPECT_NEAR(loss.to_vector<float>()[0], std::log(2.0f), 1e-6f);
  EXPECT_TRUE(std::isnan(loss.to_vector<float>()[1]));
}

}  // namespace
}  // namespace carousel
