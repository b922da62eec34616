#include "core/ops/conv.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/autograd/gradcheck.h"
#include "core/base/parallel.h"
#include "core/ops/elementwise.h"
#include "tests/support/errors.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::message_of;
using testing::random_normal;
using testing::relative_error;
using testing::to_doubles;

struct ConvCase {
  std::int64_t batch = 2, time = 7, channels = 5, width = 4;
  bool window = false;
  std::vector<std::uint8_t> reset;  // (B, S), or empty
};

Tensor reset_of(const ConvCase& c) {
  return c.reset.empty() ? Tensor{} : Tensor::from<std::uint8_t>(c.reset, {c.batch, c.time});
}

// From the definition: walks back from each token until its document, its filter or the inputs end.
std::vector<double> oracle(const ConvCase& c, const std::vector<double>& x,
                           const std::vector<double>& w, const std::vector<double>& bias,
                           const std::vector<double>& window) {
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  std::vector<double> y;
  for (std::int64_t b = 0; b < c.batch; ++b) {
    for (std::int64_t t = 0; t < c.time; ++t) {
      for (std::int64_t ch = 0; ch < c.channels; ++ch) {
        double pre = bias[at(ch)];
        for (std::int64_t back = 0; back < c.width; ++back) {
          const std::int64_t s = t - back;
          double input = 0.0;
          if (s >= 0) {
            input = x[at((b * c.time + s) * c.channels + ch)];
          } else if (c.window) {
            input = window[at((b * (c.width - 1) + s + c.width - 1) * c.channels + ch)];
          }
          pre += w[at(ch * c.width + c.width - 1 - back)] * input;
          if (s >= 0 && !c.reset.empty() && c.reset[at(b * c.time + s)] != 0) break;
        }
        y.push_back(pre / (1.0 + std::exp(-pre)));
      }
    }
  }
  return y;
}

std::vector<ConvCase> cases() {
  const std::vector<std::uint8_t> reset{0, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 0, 0};
  return {{},
          {.window = true},
          {.reset = reset},
          {.window = true, .reset = reset},
          {.batch = 1, .time = 2, .channels = 1, .window = true},
          {.batch = 1, .time = 1, .channels = 3, .width = 1},
          {.batch = 3, .time = 9, .channels = 67, .width = 3, .window = true}};
}

TEST(CausalConvSilu, MatchesTheDefinition) {
  for (const ConvCase& c : cases()) {
    const Tensor x = random_normal<float>({c.batch, c.time, c.channels}, 1);
    const Tensor w = random_normal<float>({c.channels, 1, c.width}, 2);
    const Tensor bias = random_normal<float>({c.channels}, 3);
    const Tensor window =
        c.window ? random_normal<float>({c.batch, c.width - 1, c.channels}, 4) : Tensor{};
    const Variable y =
        causal_conv_silu(Variable(x), Variable(w), Variable(bias), reset_of(c), window);
    const auto want = oracle(c, to_doubles(x), to_doubles(w), to_doubles(bias),
                             c.window ? to_doubles(window) : std::vector<double>{});
    EXPECT_LE(relative_error(to_doubles(y.value()), want), 1e-6);
  }
}

TEST(CausalConvSilu, GradientsMatchDifferences) {
  for (const ConvCase& c : cases()) {
    if (c.channels > 5) continue;
    const Tensor window =
        c.window ? random_normal<double>({c.batch, c.width - 1, c.channels}, 4) : Tensor{};
    const auto fn = [&](const std::vector<Variable>& in) {
      return std::vector<Variable>{causal_conv_silu(in[0], in[1], in[2], reset_of(c), window)};
    };
    const Tensor x = random_normal<double>({c.batch, c.time, c.channels}, 1);
    const Tensor w = random_normal<double>({c.channels, c.width}, 2);
    const auto with_bias = gradcheck(fn, {x, w, random_normal<double>({c.channels}, 3)});
    EXPECT_TRUE(with_bias.ok) << with_bias.report;
    const auto without = gradcheck(fn, {x, w, {}});
    EXPECT_TRUE(without.ok) << without.report;
  }
}

TEST(CausalConvSilu, PiecesWithWindowsEqualTheWhole) {
  const ConvCase c{.batch = 2,
                   .time = 9,
                   .reset = {0, 0, 0, 0, 1, 0, 0, 0, 0,  //
                             0, 0, 0, 0, 0, 0, 0, 1, 0}};
  const Tensor w = random_normal<float>({c.channels, c.width}, 2);
  const Tensor x = random_normal<float>({c.batch, c.time, c.channels}, 1);
  const Tensor reset = reset_of(c);
  const std::vector<float> whole =
      causal_conv_silu(Variable(x), Variable(w), {}, reset).value().to_vector<float>();
  // One sequence at a time, so that pieces are outer slices; steps of 1 and 5 tokens.
  for (std::int64_t b = 0; b < c.batch; ++b) {
    for (const std::int64_t step : {1, 5}) {
      Tensor window;
      for (std::int64_t t = 0; t < c.time; t += step) {
        const std::int64_t n = std::min(step, c.time - t);
        const Tensor piece = x.range((b * c.time + t) * c.channels, {1, n, c.channels});
        const Variable y = causal_conv_silu(Variable(piece), Variable(w), {},
                                            reset.range(b * c.time + t, {1, n}), window, &window);
        const auto got = y.value().to_vector<float>();
        const auto first = whole.begin() + (b * c.time + t) * c.channels;
        EXPECT_EQ(got, std::vector<float>(first, first + n * c.channels))
            << "sequence " << b << ", token " << t << ", step " << step;
      }
    }
  }
}

TEST(CausalConvSilu, DoesNotDependOnTheNumberOfThreads) {
  const Tensor x = random_normal<float>({2, 300, 100}, 1);
  const Tensor w = random_normal<float>({100, 4}, 2);
  const Tensor dy = random_normal<float>({2, 300, 100}, 3);
  const auto run = [&] {
    const Variable xv = Variable::leaf(x, zeros_like(x));
    const Variable wv = Variable::leaf(w, zeros_like(w));
    backward(causal_conv_silu(xv, wv, {}, {}), dy);
    auto all = xv.grad().to_vector<float>();
    const auto dw = wv.grad().to_vector<float>();
    all.insert(all.end(), dw.begin(), dw.end());
    return all;
  };
  const int threads = num_threads();
  const auto first = run();
  set_num_threads(3);
  EXPECT_EQ(run(), first);
  set_num_threads(threads);
}

TEST(CausalConvSilu, Bf16IsWithinItsRounding) {
  const Variable x = to_dtype(Variable(random_normal<float>({2, 11, 33}, 1)), DType::kBF16);
  const Variable w(random_normal<float>({33, 4}, 2));
  const Variable wide = causal_conv_silu(to_dtype(x, DType::kF32), w, {}, {});
  const Variable narrow = causal_conv_silu(x, w, {}, {});
  EXPECT_EQ(narrow.dtype(), DType::kBF16);
  EXPECT_LE(relative_error(narrow.value(), wide.value()), 0x1.0p-8);
}

TEST(CausalConvSilu, RefusesMismatchedInputsNamingThem) {
  const auto v = [](const Shape& s) { return Variable(random_normal<float>(s, 1)); };
  const Variable x = v({2, 3, 5});
  EXPECT_EQ(message_of<UsageError>([&] {
              causal_conv_silu(v({2, 5}), v({5, 4}), {}, {});
            }),
            "[causal_conv_silu] x f32 (2, 5) on cpu, expected (B, S, C), not empty");
  EXPECT_EQ(
      message_of<UsageError>([&] {
        causal_conv_silu(x, v({5, 2, 4}), {}, {});
      }),
      "[causal_conv_silu] weight f32 (5, 2, 4) on cpu, expected (C, 1, K) or (C, K) against x "
      "f32 (2, 3, 5) on cpu");
  EXPECT_EQ(message_of<UsageError>([&] {
              causal_conv_silu(x, v({5, 4}), v({4}), {});
            }),
            "[causal_conv_silu] bias f32 (4) on cpu against x f32 (2, 3, 5) on cpu");
  EXPECT_EQ(message_of<UsageError>([&] {
              causal_conv_silu(x, v({5, 4}), {}, v({2, 3}).value());
            }),
            "[causal_conv_silu] reset f32 (2, 3) on cpu against x f32 (2, 3, 5) on cpu");
  EXPECT_EQ(
      message_of<UsageError>([&] {
        causal_conv_silu(x, v({5, 4}), {}, {}, v({2, 4, 5}).value());
      }),
      "[causal_conv_silu] window f32 (2, 4, 5) on cpu, expected (B, K-1, C) against x f32 (2, 3, "
      "5) on cpu and weight f32 (5, 4) on cpu");
}

}  // namespace
}  // namespace carousel
