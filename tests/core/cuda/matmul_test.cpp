#include "core/kernels/matmul.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"

namespace carousel {
namespace {

using testing::Bench;
using testing::expect_cuda_matches_cpu;
using testing::kGpu;

struct Size {
  std::int64_t m, n, k;
};
// Whole tiles, sizes that allow no vector access, single rows and columns.
const std::vector<Size> kSizes = {
    {64, 128, 256}, {33, 17, 65}, {1, 50, 7}, {129, 1, 40}, {5, 3, 1}};

TEST(CudaMatmul, AllTransposesMatchTheCpu) {
  CAROUSEL_REQUIRE_CUDA();
  for (const Size& s : kSizes) {
    for (const bool ta : {false, true}) {
      for (const bool tb : {false, true}) {
        expect_cuda_matches_cpu([&](const Bench& bench) {
          const Tensor a = bench.input(ta ? Shape{s.k, s.m} : Shape{s.m, s.k}, 1);
          const Tensor b = bench.input(tb ? Shape{s.n, s.k} : Shape{s.k, s.n}, 2);
          const Tensor out = bench.output({s.m, s.n});
          matmul(bench.device(),
                 {.a = a, .b = b, .out = out, .transpose_a = ta, .transpose_b = tb});
          return std::vector<Tensor>{out};
        });
      }
    }
  }
}

TEST(CudaMatmul, BiasOfEitherDtypeIsAdded) {
  CAROUSEL_REQUIRE_CUDA();
  for (const Size& s : kSizes) {
    for (const bool wide : {false, true}) {
      expect_cuda_matches_cpu([&](const Bench& bench) {
        const Tensor a = bench.input({s.m, s.k}, 1);
        const Tensor b = bench.input({s.n, s.k}, 2);
        const Tensor bias = wide ? bench.wide_input({s.n}, 3) : bench.input({s.n}, 3);
        const Tensor out = bench.output({s.m, s.n});
        matmul(bench.device(), {.a = a, .b = b, .bias = bias, .out = out, .transpose_b = true});
        return std::vector<Tensor>{out};
      });
    }
  }
}

TEST(CudaMatmul, AccumulatesIntoFloat32AndIntoItsOwnDtype) {
  CAROUSEL_REQUIRE_CUDA();
  for (const Size& s : kSizes) {
    expect_cuda_matches_cpu([&](const Bench& bench) {
      const Tensor a = bench.input({s.k, s.m}, 1);
      const Tensor b = bench.input({s.k, s.n}, 2);
      const Tensor wide = bench.wide_input({s.m, s.n}, 3);
      const Tensor narrow = bench.input({s.m, s.n}, 4);
      for (const Tensor& out : {wide, narrow}) {
        matmul(bench.device(),
               {.a = a, .b = b, .out = out, .transpose_a = true, .accumulate = true});
      }
      return std::vector<Tensor>{wide, narrow};
    });
  }
}

TEST(CudaMatmul, SlicesAtOddAddressesAreFine) {
  CAROUSEL_REQUIRE_CUDA();
  expect_cuda_matches_cpu([](const Bench& bench) {
    const Tensor a = bench.input({1 + 24 * 40}, 1).range(1, {24, 40});
    const Tensor b = bench.input({3 + 40 * 16}, 2).range(3, {40, 16});
    const Tensor out = bench.output({1 + 24 * 16});
    matmul(bench.device(), {.a = a, .b = b, .out = out.range(1, {24, 16})});
    return std::vector<Tensor>{out.range(1, {24, 16})};
  });
}

TEST(CudaMatmul, Float32IsTf32OnlyWhereAllowed) {
  CAROUSEL_REQUIRE_CUDA();
  // 1 + 2^-20 becomes 1 in TF32's ten bits.
  constexpr std::int64_t kN = 256;
  const std::vector<float> value(kN * kN, 1.0f + 0x1p-20f);
  const Tensor a = Tensor::from<float>(value, {kN, kN}, kGpu);
  std::vector<float> diagonal(kN * kN, 0.0f);
  for (std::size_t i = 0; i < kN; ++i) diagonal[i * (kN + 1)] = 1.0f;
  const Tensor identity = Tensor::from<float>(diagonal, {kN, kN}, kGpu);
  const auto product = [&] {
    const Tensor out = Tensor::empty({kN, kN}, DType::kF32, kGpu);
    matmul(kGpu, {.a = a, .b = identity, .out = out});
    return out.to_vector<float>();
  };
  EXPECT_EQ(product(), value);
  allow_tf32 = true;
  const auto rounded = product();
  allow_tf32 = false;
  EXPECT_EQ(rounded, std::vector<float>(kN * kN, 1.0f));
  EXPECT_EQ(product(), value);
}

TEST(CudaMatmul, ASumOverNothingIsZero) {
  CAROUSEL_REQUIRE_CUDA();
  const Bench bench(kGpu, DType::kBF16);
  const Tensor out = bench.output({3, 5});
  const Tensor kept = bench.wide_input({3, 5}, 1);
  const auto before = kept.to_vector<float>();
  matmul(kGpu, {.a = bench.output({3, 0}), .b = bench.output({0, 5}), .out = out});
  matmul(kGpu,
         {.a = bench.output({3, 0}), .b = bench.output({0, 5}), .out = kept, .accumulate = true});
  matmul(kGpu, {.a = bench.output({0, 4}), .b = bench.output({4, 5}), .out = bench.output({0, 5})});
  EXPECT_EQ(testing::to_doubles(out), std::vector<double>(15, 0.0));
  EXPECT_EQ(kept.to_vector<float>(), before);
}

TEST(CudaColumnSum, MatchesTheCpuAndAccumulates) {
  CAROUSEL_REQUIRE_CUDA();
  for (const Shape& shape : {Shape{1, 1}, Shape{3, 33}, Shape{1000, 64}, Shape{70001, 7},
                             Shape{2000, 520}, Shape{0, 5}}) {
    expect_cuda_matches_cpu([&](const Bench& bench) {
      const Tensor out = bench.wide_input({shape[1]}, 2);
      column_sum(bench.device(), {bench.input(shape, 1), out});
      return std::vector<Tensor>{out};
    });
  }
}

}  // namespace
}  // namespace carousel
