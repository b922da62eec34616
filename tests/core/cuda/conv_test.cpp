#include "core/kernels/conv.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"

namespace carousel {
namespace {

using testing::Bench;
using testing::expect_cuda_matches_cpu;

struct ConvCase {
  std::int64_t batch, length, channels, taps;
  bool bias, reset, window, wide;
};

// Fewer tokens than taps, ragged runs, several blocks of time; every number of padded taps.
const std::vector<ConvCase> kCases = {
    {1, 1, 1, 4, true, false, true, true},      {2, 3, 6, 4, true, true, true, true},
    {3, 37, 64, 4, true, true, false, false},   {2, 600, 66, 4, true, true, true, true},
    {1, 300, 40, 3, false, false, false, true}, {2, 50, 33, 1, true, true, false, true},
    {2, 70, 34, 2, true, true, true, true},     {2, 45, 20, 7, true, true, true, true},
    {1, 60, 5, 13, true, true, true, true},     {1, 90, 8, 32, true, true, true, true},
};

std::vector<std::uint8_t> some_resets(std::int64_t n) {
  std::vector<std::uint8_t> resets(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < resets.size(); ++i) resets[i] = philox_word({5, 0, 0}, i) % 7 == 0;
  return resets;
}

std::vector<Tensor> run_conv(const Bench& bench, const ConvCase& c) {
  const Shape shape{c.batch, c.length, c.channels};
  const auto weights = [&](const Shape& s, std::uint64_t seed) {
    return c.wide ? bench.wide_input(s, seed, 0.5) : bench.input(s, seed, 0.5);
  };
  const Tensor x = bench.input(shape, 1);
  const Tensor weight = weights({c.channels, c.taps}, 2);
  const Tensor bias = c.bias ? weights({c.channels}, 3) : Tensor{};
  const Tensor reset =
      c.reset ? bench.bytes(some_resets(c.batch * c.length), {c.batch, c.length}) : Tensor{};
  const Shape window_shape{c.batch, c.taps - 1, c.channels};
  const Tensor window = c.window ? bench.input(window_shape, 4) : Tensor{};
  const Tensor last = bench.output(window_shape);
  const Tensor y = bench.output(shape);
  conv_silu_fwd(bench.device(), {x, weight, bias, reset, window, y, last});

  const Tensor dx = bench.output(shape);
  const Tensor dweight = bench.wide_input({c.channels, c.taps}, 5);
  const Tensor dbias = c.bias ? bench.wide_input({c.channels}, 6) : Tensor{};
  conv_silu_bwd(bench.device(),
                {x, weight, bias, reset, window, bench.input(shape, 7), dx, dweight, dbias});
  const Tensor dweight_alone = bench.wide_input({c.channels, c.taps}, 5);
  conv_silu_bwd(bench.device(),
                {x, weight, bias, reset, window, bench.input(shape, 7), {}, dweight_alone, {}});
  std::vector<Tensor> results{y, last, dx, dweight, dweight_alone};
  if (c.bias) results.push_back(dbias);
  return results;
}

TEST(CudaConv, MatchesTheCpuInBothDirections) {
  CAROUSEL_REQUIRE_CUDA();
  for (const ConvCase& c : kCases) {
    SCOPED_TRACE(::testing::Message() << c.batch << " x " << c.length << " x " << c.channels << ", "
                                      << c.taps << " taps");
    expect_cuda_matches_cpu([&](const Bench& bench) { return run_conv(bench, c); }, 2e-6);
  }
}

TEST(CudaConv, TooManyTapsAreRefused) {
  CAROUSEL_REQUIRE_CUDA();
  const Bench bench(testing::kGpu, DType::kF32);
  EXPECT_THROW(conv_silu_fwd(testing::kGpu, {.x = bench.input({1, 4, 2}, 1),
                                             .weight = bench.input({2, 33}, 2),
                                             .y = bench.output({1, 4, 2})}),
               UsageError);
}

}  // namespace
}  // namespace carousel
