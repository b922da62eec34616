#include "core/kernels/headwise.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"

namespace carousel {
namespace {

using testing::Bench;
using testing::expect_cuda_matches_cpu;

struct HeadwiseCase {
  std::int64_t rows, heads, out, in;
};

TEST(CudaHeadwise, MatchesTheCpuInBothDirections) {
  CAROUSEL_REQUIRE_CUDA();
  // Blocks that live in registers, and ones that go to cuBLASLt.
  for (const HeadwiseCase& c :
       {HeadwiseCase{300, 70, 4, 4}, HeadwiseCase{5000, 3, 4, 4}, HeadwiseCase{41, 65, 8, 8},
        HeadwiseCase{50, 3, 5, 7}, HeadwiseCase{100, 4, 64, 32}, HeadwiseCase{1, 2, 4, 4}}) {
    SCOPED_TRACE(::testing::Message()
                 << c.rows << " x " << c.heads << " x " << c.out << " x " << c.in);
    expect_cuda_matches_cpu([&](const Bench& bench) {
      const Tensor x = bench.input({c.rows, c.heads * c.in}, 1);
      const Tensor weight = bench.input({c.heads, c.out, c.in}, 2);
      const Tensor dy = bench.input({c.rows, c.heads * c.out}, 3);
      const Tensor y = bench.output({c.rows, c.heads * c.out});
      const Tensor dx = bench.output({c.rows, c.heads * c.in});
      const Tensor dweight = bench.wide_input({c.heads, c.out, c.in}, 4);
      const Tensor dx_alone = bench.output({c.rows, c.heads * c.in});
      headwise_fwd(bench.device(), {x, weight, y});
      headwise_bwd(bench.device(), {x, weight, dy, dx, dweight});
      headwise_bwd(bench.device(), {x, weight, dy, dx_alone, {}});
      return std::vector<Tensor>{y, dx, dweight, dx_alone};
    });
  }
}

TEST(CudaColumns, CopiesOfEveryWidthMatchTheCpu) {
  CAROUSEL_REQUIRE_CUDA();
  struct Copy {
    std::int64_t from_width, to_width, from, to, columns;
  };
  for (const Copy& c : {Copy{64, 32, 16, 0, 32}, Copy{10, 7, 3, 2, 5}, Copy{6, 6, 2, 4, 2},
                        Copy{1000, 3000, 0, 1000, 1000}}) {
    expect_cuda_matches_cpu([&](const Bench& bench) {
      const Tensor out = bench.input({45, c.to_width}, 2);
      copy_columns(bench.device(),
                   {bench.input({45, c.from_width}, 1), out, c.from, c.to, c.columns});
      return std::vector<Tensor>{out};
    });
  }
}

TEST(CudaColumns, SkipAndBiasMatchTheCpu) {
  CAROUSEL_REQUIRE_CUDA();
  for (const Shape& shape : {Shape{1, 1}, Shape{45, 33}, Shape{2001, 64}, Shape{130, 1536}}) {
    for (const bool wide : {false, true}) {
      expect_cuda_matches_cpu([&](const Bench& bench) {
        const Tensor a = bench.input(shape, 1);
        const Tensor scale = wide ? bench.wide_input({shape[1]}, 2) : bench.input({shape[1]}, 2);
        const Tensor y = bench.output(shape);
        const Tensor da = bench.output(shape);
        const Tensor dscale = bench.wide_input({shape[1]}, 5);
        skip_fwd(bench.device(), {a, scale, bench.input(shape, 3), y});
        skip_bwd(bench.device(), {a, scale, bench.input(shape, 4), da, dscale});
        const Tensor da_alone = bench.output(shape);
        skip_bwd(bench.device(), {a, scale, bench.input(shape, 4), da_alone, {}});
        const Tensor biased = bench.output(shape);
        add_bias_fwd(bench.device(), {a, scale, biased});
        return std::vector<Tensor>{y, da, dscale, da_alone, biased};
      });
    }
  }
}

}  // namespace
}  // namespace carousel
