#include <gtest/gtest.h>

#include "core/autograd/gradcheck.h"
#include "core/autograd/random.h"
#include "core/autograd/recompute.h"
#include "core/autograd/variable.h"
#include "core/ops/elementwise.h"
#include "core/ops/linear.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::random_normal;

Variable leaf(const Tensor& t) { return Variable::leaf(t, zeros_like(t)); }

TEST(Engine, AddsGradientsOfAVariableUsedTwice) {
  const Variable x = leaf(random_normal<float>({3}, 1));
  const Tensor one = Tensor::from<float>(std::vector<float>{1, 1, 1}, {3});
  const Variable y = add(scaled(x, 2.0), add(x, x));
  backward(y, one);
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{4, 4, 4}));
}

TEST(Engine, SharedGradientOfAddIsNotOverwritten) {
  // add hands one tensor to both inputs; the sum into `a` must not leak into `b`.
  const Variable x = leaf(random_normal<float>({2}, 1));
  const Variable a = scaled(x, 1.0);
  const Variable b = scaled(x, 10.0);
  const Variable y = add(add(a, b), scaled(a, 100.0));
  backward(y, Tensor::from<float>(std::vector<float>{1, 1}, {2}));
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{111, 111}));
}

TEST(Engine, AccumulatesOverTwoBackwards) {
  const Variable x = leaf(random_normal<float>({1}, 1));
  backward(scaled(x, 3.0));
  backward(scaled(x, 4.0));
  EXPECT_FLOAT_EQ(static_cast<float>(x.grad().item()), 7.0f);
}

TEST(Engine, RefusesASecondBackwardThroughOneGraph) {
  const Variable x = leaf(random_normal<float>({1}, 1));
  const Variable y = scaled(x, 3.0);
  backward(y);
  EXPECT_THROW(backward(y), InternalError);
}

TEST(Engine, NoticesAnOverwrittenSavedTensor) {
  const Variable x = leaf(random_normal<float>({2, 3}, 1));
  const Variable w = leaf(random_normal<float>({1, 3}, 2));
  const Variable y = linear(x, w);
  Tensor(x.value()).zero_();
  EXPECT_THROW(backward(y, random_normal<float>({2, 1}, 3)), InternalError);
}

TEST(Engine, NoGradRecordsNothing) {
  const Variable x = leaf(random_normal<float>({2}, 1));
  const NoGrad no_grad;
  EXPECT_FALSE(scaled(x, 2.0).requires_grad());
}

TEST(Engine, SurvivesAVeryLongChain) {
  const Variable x = leaf(random_normal<float>({1}, 1));
  Variable y = x;
  for (int i = 0; i < 200000; ++i) y = scaled(y, 1.0);
  backward(y);
  EXPECT_FLOAT_EQ(static_cast<float>(x.grad().item()), 1.0f);
  Variable z = x;  // and one that is dropped without a backward
  for (int i = 0; i < 200000; ++i) z = scaled(z, 1.0);
}

TEST(Engine, FreesSavedTensorsAsItGoes) {
  const RoleScope role(Role::kActivations);
  const Variable w = leaf(random_normal<float>({64, 64}, 2));
  const std::size_t before = memory_stats(kCpu).total_used;
  Variable y(random_normal<float>({256, 64}, 1));
  for (int i = 0; i < 4; ++i) y = linear(y, w);
  const Tensor dy = random_normal<float>({256, 64}, 3);
  backward(y, dy);
  y = Variable();
  EXPECT_EQ(memory_stats(kCpu).total_used, before + 256 * 64 * sizeof(float));  // dy alone
}

TEST(Engine, ObserverSeesEveryOpInOrder) {
  std::vector<std::string> seen;
  const OpObserver observer(
      [&](const char* op, const std::vector<Tensor>&) { seen.emplace_back(op); });
  const Variable x(random_normal<float>({2}, 1));
  add(scaled(x, 2.0), x);
  EXPECT_EQ(seen, (std::vector<std::string>{"scale", "add"}));
}

TEST(Engine, TellsWhenTheGradientOfALeafIsComplete) {
  const Variable w = leaf(random_normal<float>({3}, 1));
  const Variable unused = leaf(random_normal<float>({3}, 2));
  std::vector<std::vector<float>> seen;
  w.on_gradient_complete([&] { seen.push_back(w.grad().to_vector<float>()); });
  unused.on_gradient_complete([&] { ADD_FAILURE() << "no gradient reaches it"; });
  const auto twice = [&](const std::vector<Variable>& in) {
    return std::vector<Variable>{add(scaled(w, 2.0), add(in[0], w))};
  };
  const Tensor one = Tensor::from<float>(std::vector<float>{1, 1, 1}, {3});
  { const Variable dropped = scaled(w, 5.0); }  // a graph without a backward does not count
  const Variable first = add(w, leaf(random_normal<float>({3}, 3)));
  const Variable inner = recompute(twice, {first})[0];
  const Variable outer =
      recompute([&](const std::vector<Variable>& in) { return recompute(twice, in); }, {inner})[0];
  backward(outer, one);
  EXPECT_EQ(seen, (std::vector<std::vector<float>>{{7, 7, 7}}));  // once, with all shares
  w.on_gradient_complete({});
  backward(scaled(w, 2.0), one);
  EXPECT_EQ(seen.size(), 1u);
}

TEST(Recompute, GivesTheSameGradientsWithTheSameDropout) {
  const Tensor x0 = random_normal<float>({5, 4}, 1);
  const Tensor w0 = random_normal<float>({4, 4}, 2);
  const auto run = [&](bool recomputed) {
    const RandomScope random(11, 3);
    const Variable x = leaf(x0);
    const Variable w = leaf(w0);
    const auto fn = [&w](const std::vector<Variable>& in) {
      return std::vector<Variable>{apply_dropout(linear(apply_dropout(in[0], 0.3), w), 0.5)};
    };
    const Variable y = recomputed ? recompute(fn, {x})[0] : fn({x})[0];
    backward(y, random_normal<float>({5, 4}, 3));
    auto all = x.grad().to_vector<float>();
    const auto dw = w.grad().to_vector<float>();
    all.insert(all.end(), dw.begin(), dw.end());
    return all;
  };
  EXPECT_EQ(run(true), run(false));
}

TEST(Gradcheck, CatchesAWrongBackward) {
  const auto wrong = [](const std::vector<Variable>& in) {
    const Variable y = scaled(in[0].detach(), 2.0);
    return std::vector<Variable>{record("wrong", y.value(), {in[0]}, {}, [](BackwardContext& ctx) {
      ctx.set(0, ctx.grad(0));  // the true factor is 2
    })};
  };
  EXPECT_FALSE(gradcheck(wrong, {random_normal<double>({3}, 1)}).ok);
}

}  // namespace
}  // namespace carousel
