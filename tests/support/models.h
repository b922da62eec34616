// What the tests of both model families do with a model.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/ops/cross_entropy.h"
#include "core/ops/elementwise.h"
#include "layers/language_model.h"
#include "tests/support/random.h"

namespace carousel::testing {

inline Tensor random_tokens(const Shape& shape, std::int64_t vocab, std::uint64_t seed) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] =
        static_cast<std::int32_t>(philox_word({seed, 0, 0}, i) % static_cast<std::uint32_t>(vocab));
  }
  return Tensor::from<std::int32_t>(ids, shape);
}

/// Overwrites a parameter with normal values.
inline void set_normal(const Parameter& p, std::uint64_t seed, double std, double mean = 0.0) {
  const Tensor values = random_normal<double>(p.spec.shape, seed, std, mean);
  if (p.master.dtype() == DType::kF64) {
    Tensor(p.master).copy_(values);
    return;
  }
  const auto wide = values.to_vector<double>();
  const std::vector<float> narrow(wide.begin(), wide.end());
  Tensor(p.master).copy_(Tensor::from<float>(narrow, p.spec.shape));
}

/// (B, S) tokens through the model to (B·S) losses.
inline Variable losses(const LanguageModel& model, const Tensor& tokens, const Tensor& targets,
                       const ForwardOptions& options = {}, const Tensor& reset = {}) {
  const Variable hidden = model.hidden(tokens, reset, options);
  const Variable logits = model.logits(reshape(hidden, {tokens.numel(), hidden.dim(-1)}));
  return cross_entropy(logits, targets, model.logit_cap()).loss;
}

/// Expects the gradient of every parameter of a float64 model to match central differences within
/// a relative tolerance, on a sample of its elements.
inline void expect_gradients_match_differences(LanguageModel& model, const Tensor& tokens,
                                               const Tensor& targets, const Tensor& reset = {},
                                               double tolerance = 1e-6) {
  backward(sum(losses(model, tokens, targets, {}, reset)));
  for (const Parameter& p : model.parameters().all()) {
    const auto tape = p.variable.grad().to_vector<double>();
    double* w = p.master.data<double>();
    double error2 = 0.0;
    double norm2 = 0.0;
    for (std::size_t e = 0; e < tape.size(); e += 1 + tape.size() / 5) {
      const double x = w[e];
      const double h = 1e-5;
      const auto loss_at = [&](double value) {
        const NoGrad no_grad;
        w[e] = value;
        return sum(losses(model, tokens, targets, {}, reset)).value().item();
      };
      const double difference = (loss_at(x + h) - loss_at(x - h)) / (2 * h);
      w[e] = x;
      error2 += (tape[e] - difference) * (tape[e] - difference);
      norm2 += difference * difference;
    }
    EXPECT_LE(std::sqrt(error2), tolerance * std::sqrt(norm2) + 1e-8) << p.spec.name;
  }
}

}  // namespace carousel::testing
