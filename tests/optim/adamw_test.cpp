#include "optim/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::random_normal;
using testing::to_doubles;

void declare(ParameterSet& set) {
  set.add({.name = "w", .shape = {7, 3}, .init = init_normal(1.0), .decay = true});
  set.add({.name = "b", .shape = {5}, .init = init_normal(1.0), .keep_float32 = true});
  set.add({.name = "e", .shape = {2, 67}, .init = init_normal(1.0)});
}

// AdamW from its definition, in double, one element at a time.
struct Reference {
  std::vector<double> w, m, v;
  void step(const std::vector<double>& g, double decay, double scale, double lr, int t) {
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double gi = scale * g[i];
      m[i] = 0.9 * m[i] + 0.1 * gi;
      v[i] = 0.95 * v[i] + 0.05 * gi * gi;
      w[i] -= lr * decay * w[i];
      w[i] -=
          lr * (m[i] / (1 - std::pow(0.9, t))) / (std::sqrt(v[i] / (1 - std::pow(0.95, t))) + 1e-8);
    }
  }
};

TEST(AdamW, MatchesItsDefinitionOverSeveralSteps) {
  ParameterSet set;
  declare(set);
  set.materialise(kCpu, DType::kF32);
  set.initialise(3);
  AdamWConfig config;
  config.beta1 = 0.9;
  config.beta2 = 0.95;
  config.weight_decay = 0.1;
  config.clip = 1.0;
  AdamW optimizer(set, config);
  std::vector<Reference> reference;
  for (const Parameter& p : set.all()) {
    const auto w = to_doubles(p.master);
    reference.push_back({w, std::vector<double>(w.size()), std::vector<double>(w.size())});
  }
  for (int t = 1; t <= 5; ++t) {
    double norm2 = 0.0;
    for (const Parameter& p : set.all()) {
      const auto seed = static_cast<std::uint64_t>(p.offset + 1000 * t);
      Tensor(p.variable.grad()).copy_(random_normal<float>(p.spec.shape, seed));
      for (const double g : to_doubles(p.variable.grad())) norm2 += g * g;
    }
    optimizer.update(t, 0.01);
    EXPECT_NEAR(optimizer.gradient_norm(), std::sqrt(norm2), 1e-9 * std::sqrt(norm2));
    const double scale = std::min(1.0, 1.0 / (std::sqrt(norm2) + 1e-6));
    for (std::size_t k = 0; k < reference.size(); ++k) {
      const Parameter& p = set.all()[k];
      reference[k].step(to_doubles(p.variable.grad()), p.spec.decay ? 0.1 : 0.0, scale, 0.01, t);
      EXPECT_LE(testing::relative_error(to_doubles(p.master), reference[k].w), 1e-6) << p.spec.name;
    }
  }
}

TEST(AdamW, RefreshesBf16CopiesAndKeepsFloat32Parameters) {
  ParameterSet set;
  declare(set);
  set.materialise(kCpu, DType::kBF16);
  set.initialise(3);
  EXPECT_EQ(set.at("w").variable.dtype(), DType::kBF16);
  EXPECT_EQ(set.at("b").variable.dtype(), DType::kF32);
  AdamW optimizer(set, {});
  Tensor(set.at("w").variable.grad()).copy_(random_normal<float>({7, 3}, 5));
  optimizer.update(1, 0.1);
  const auto master = set.at("w").master.to_vector<float>();
  const auto copy = set.at("w").variable.value().to_vector<bfloat16>();
  for (std::size_t i = 0; i < master.size(); ++i) {
    EXPECT_EQ(copy[i].bits, bfloat16(master[i]).bits);
  }
}

TEST(AdamW, LeavesTheWeightsAloneWhenTheGradientIsNotFinite) {
  ParameterSet set;
  declare(set);
  set.materialise(kCpu, DType::kF32);
  set.initialise(3);
  AdamW optimizer(set, {});
  const auto before = set.master().to_vector<float>();
  const float bad = std::numeric_limits<float>::quiet_NaN();
  Tensor(set.at("b").variable.grad()).copy_(Tensor::from<float>(std::vector<float>(5, bad), {5}));
  optimizer.update(1, 0.1);
  EXPECT_FALSE(std::isfinite(optimizer.gradient_norm()));
  EXPECT_EQ(set.master().to_vector<float>(), before);
}

TEST(ParameterSet, InitialValuesDependOnSeedAndNameOrderAlone) {
  ParameterSet a;
  ParameterSet b;
  declare(a);
  declare(b);
  a.materialise(kCpu, DType::kF32);
  b.materialise(kCpu, DType::kBF16);
  a.initialise(3);
  b.initialise(3);
  EXPECT_EQ(a.master().to_vector<float>(), b.master().to_vector<float>());
  b.initialise(4);
  EXPECT_NE(a.master().to_vector<float>(), b.master().to_vector<float>());
}

TEST(ParameterSet, RefusesTwoParametersOfOneName) {
  ParameterSet set;
  declare(set);
  EXPECT_THROW(set.add({.name = "w", .shape = {1}, .init = init_constant(0)}), InternalError);
}

}  // namespace
}  // namespace carousel
