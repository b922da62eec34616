#include "layers/mlstm/cell.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/autograd/gradcheck.h"
#include "core/base/parallel.h"
#include "tests/layers/mlstm/cell_case.h"
#include "tests/support/backward_args.h"

namespace carousel {
namespace {

using mlstm::Form;
using mlstm::InputGate;
using testing::CellCase;
using testing::expect_close;
using testing::kForms;
using testing::make_inputs;
using testing::make_upstream;
using testing::name_of_form;
using testing::Named;
using testing::oracle;
using testing::random_normal;
using testing::relative_error;
using testing::run_cell;

// Odd sizes, chunks that do and do not divide S, one token, resets inside chunks, at their borders
// and at the first token, both gates, with and without an initial state.
std::vector<CellCase> cases() {
  std::vector<CellCase> all;
  for (const InputGate gate : {InputGate::kExponential, InputGate::kSigmoid}) {
    for (const bool initial : {false, true}) {
      all.push_back({.gate = gate, .initial = initial});
      all.push_back({.chunk = 1, .gate = gate, .initial = initial});
      all.push_back({.time = 12, .dqk = 7, .dv = 2, .gate = gate, .initial = initial});
      all.push_back({.gate = gate, .initial = initial, .resets = {0, 2, 7, 8}});
      all.push_back({.time = 9, .chunk = 100, .gate = gate, .initial = initial, .resets = {4}});
      all.push_back({.time = 1, .dqk = 1, .dv = 1, .gate = gate, .initial = initial});
    }
  }
  return all;
}

TEST(MlstmCell, MatchesTheRecurrenceAndItsComplexStepGradients) {
  int index = 0;
  for (const CellCase& c : cases()) {
    const auto in = make_inputs(c, 100);
    const auto up = make_upstream(c, true, 200);
    const Named want = oracle(in, up);
    for (const Form form : kForms) {
      expect_close(run_cell<double>(in, up, form, c.chunk), want, 1e-12,
                   fmt::format("case {} {}", index, name_of_form(form)));
    }
    ++index;
  }
}

// Several tiles of rows and several chunks of several tiles.
TEST(MlstmCell, MatchesTheRecurrenceOverManyTiles) {
  const CellCase c{.batch = 1,
                   .time = 161,
                   .heads = 1,
                   .dqk = 2,
                   .dv = 1,
                   .chunk = 70,
                   .initial = true,
                   .resets = {64, 100}};
  const auto in = make_inputs(c, 1);
  const auto up = make_upstream(c, true, 2);
  const Named want = oracle(in, up);
  for (const Form form : kForms) {
    expect_close(run_cell<double>(in, up, form, c.chunk), want, 1e-12, name_of_form(form));
  }
}

TEST(MlstmCell, GradientsMatchDifferences) {
  for (const Form form : kForms) {
    const mlstm::CellOptions options{.form = form, .chunk_size = 3, .eps = 0.0};
    const Tensor reset =
        Tensor::from<std::uint8_t>(std::vector<std::uint8_t>{0, 0, 1, 0, 0}, {1, 5});
    const Tensor m0 = random_normal<double>({1, 2}, 8);
    const auto fn = [&](const std::vector<Variable>& x) {
      const mlstm::State initial{x[5], x[6], Variable(m0)};
      return std::vector<Variable>{
          mlstm::cell(x[0], x[1], x[2], x[3], x[4], initial, reset, options).h};
    };
    const auto result = gradcheck(
        fn, {random_normal<double>({1, 5, 2, 3}, 1), random_normal<double>({1, 5, 2, 3}, 2),
             random_normal<double>({1, 5, 2, 4}, 3), random_normal<double>({1, 5, 2}, 4),
             random_normal<double>({1, 5, 2}, 5), random_normal<double>({1, 2, 3, 4}, 6),
             random_normal<double>({1, 2, 3}, 7)});
    EXPECT_TRUE(result.ok) << name_of_form(form) << "\n" << result.report;
  }
}

std::vector<Tensor> cell_inputs(std::int64_t time) {
  return {random_normal<double>({1, time, 2, 3}, 1), random_normal<double>({1, time, 2, 3}, 2),
          random_normal<double>({1, time, 2, 4}, 3), random_normal<double>({1, time, 2}, 4, 3.0),
          random_normal<double>({1, time, 2}, 5, 3.0)};
}

// Tokens [begin, end) of (1, S, …) as leaves.
std::vector<Variable> leaves(const std::vector<Tensor>& inputs, std::int64_t begin,
                             std::int64_t end) {
  std::vector<Variable> out;
  for (const Tensor& t : inputs) {
    std::vector<std::int64_t> dims(t.shape().dims().begin(), t.shape().dims().end());
    dims[1] = end - begin;
    const Tensor part = t.range(begin * (t.numel() / t.dim(1)), Shape(dims));
    out.push_back(Variable::leaf(part, zeros_like(part)));
  }
  return out;
}

mlstm::CellResult cell_of(const std::vector<Variable>& x, const mlstm::State& initial,
                          const mlstm::CellOptions& options, const Tensor& reset = {}) {
  return mlstm::cell(x[0], x[1], x[2], x[3], x[4], initial, reset, options);
}

std::vector<double> joined(const Tensor& a, const Tensor& b) {
  auto all = a.to_vector<double>();
  const auto rest = b.to_vector<double>();
  all.insert(all.end(), rest.begin(), rest.end());
  return all;
}

TEST(MlstmCell, TwoSegmentsGiveTheGradientsOfOne) {
  const auto inputs = cell_inputs(11);
  const Tensor dh = random_normal<double>({1, 11, 2, 4}, 9);
  for (const Form form : kForms) {
    const mlstm::CellOptions options{.form = form, .chunk_size = 4, .return_last_state = true};
    const auto whole = leaves(inputs, 0, 11);
    const auto h = cell_of(whole, {}, options).h;
    backward(h, dh);
    const auto first = leaves(inputs, 0, 6);
    const auto second = leaves(inputs, 6, 11);
    const auto r1 = cell_of(first, {}, options);
    const auto r2 = cell_of(second, r1.last, options);
    backward({r1.h, r2.h}, {dh.range(0, {1, 6, 2, 4}), dh.range(48, {1, 5, 2, 4})});
    EXPECT_LE(relative_error(joined(r1.h.value(), r2.h.value()), h.value().to_vector<double>()),
              1e-13);
    for (std::size_t x = 0; x < whole.size(); ++x) {
      EXPECT_LE(relative_error(joined(first[x].grad(), second[x].grad()),
                               whole[x].grad().to_vector<double>()),
                1e-12)
          << name_of_form(form) << " input " << x;
    }
  }
}

TEST(MlstmCell, PackedDocumentsEqualSeparateOnes) {
  const auto inputs = cell_inputs(11);
  const Tensor dh = random_normal<double>({1, 11, 2, 4}, 9);
  const Tensor reset = Tensor::from<std::uint8_t>(
      std::vector<std::uint8_t>{0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}, {1, 11});
  for (const Form form : kForms) {
    const mlstm::CellOptions options{.form = form, .chunk_size = 4, .eps = 0.5};
    const auto packed = leaves(inputs, 0, 11);
    const auto h = cell_of(packed, {}, options, reset).h;
    backward(h, dh);
    const auto first = leaves(inputs, 0, 6);
    const auto second = leaves(inputs, 6, 11);
    const auto h1 = cell_of(first, {}, options).h;
    const auto h2 = cell_of(second, {}, options).h;
    backward({h1, h2}, {dh.range(0, {1, 6, 2, 4}), dh.range(48, {1, 5, 2, 4})});
    EXPECT_LE(relative_error(h.value().to_vector<double>(), joined(h1.value(), h2.value())), 1e-14);
    for (std::size_t x = 0; x < packed.size(); ++x) {
      EXPECT_LE(relative_error(packed[x].grad().to_vector<double>(),
                               joined(first[x].grad(), second[x].grad())),
                1e-13)
          << name_of_form(form) << " input " << x;
    }
  }
}

TEST(MlstmCell, NoGradientCrossesAReset) {
  const auto inputs = cell_inputs(9);
  const Tensor reset =
      Tensor::from<std::uint8_t>(std::vector<std::uint8_t>{0, 0, 0, 0, 0, 1, 0, 0, 0}, {1, 9});
  Tensor dh = Tensor::zeros({1, 9, 2, 4}, DType::kF64);
  dh.range(5 * 8, {4, 2, 4}).copy_(random_normal<double>({4, 2, 4}, 9));
  for (const Form form : kForms) {
    const auto x = leaves(inputs, 0, 9);
    const auto state = [](const Shape& shape, std::uint64_t seed) {
      return Variable::leaf(random_normal<double>(shape, seed), Tensor::zeros(shape, DType::kF64));
    };
    const mlstm::State initial{state({1, 2, 3, 4}, 6), state({1, 2, 3}, 7),
                               Variable(random_normal<double>({1, 2}, 8))};
    backward(cell_of(x, initial, {.form = form, .chunk_size = 3}, reset).h, dh);
    for (const Variable& v : x) {
      const auto grad = v.grad().to_vector<double>();
      const std::size_t per_token = grad.size() / 9;
      for (std::size_t e = 0; e < 5 * per_token; ++e) EXPECT_EQ(grad[e], 0.0) << name_of_form(form);
    }
    const auto df = x[4].grad().to_vector<double>();
    EXPECT_EQ(df[10], 0.0);  // the reset token's own forget gate
    EXPECT_NE(df[12], 0.0);
    for (const Variable& v : {initial.c, initial.n}) {
      for (const double g : v.grad().to_vector<double>()) EXPECT_EQ(g, 0.0) << name_of_form(form);
    }
  }
}

TEST(MlstmCell, GeneratesTokenByTokenWhatItComputesAtOnce) {
  const auto inputs = cell_inputs(7);
  const NoGrad no_grad;
  const mlstm::CellOptions whole{.form = Form::kChunkwise, .chunk_size = 4};
  const auto want = cell_of(leaves(inputs, 0, 7), {}, whole).h.value().to_vector<double>();
  for (const Form form : kForms) {
    mlstm::State state;
    std::vector<double> got;
    for (std::int64_t t = 0; t < 7; ++t) {
      const auto r =
          cell_of(leaves(inputs, t, t + 1), state, {.form = form, .return_last_state = true});
      state = r.last;
      const auto h = r.h.value().to_vector<double>();
      got.insert(got.end(), h.begin(), h.end());
    }
    EXPECT_LE(relative_error(got, want), 1e-14) << name_of_form(form);
  }
}

TEST(MlstmCell, DoesNotDependOnTheNumberOfThreads) {
  const CellCase c{.batch = 3, .time = 40, .heads = 3, .dqk = 16, .dv = 16, .chunk = 16};
  const auto in = make_inputs(c, 1);
  const auto up = make_upstream(c, true, 2);
  const int threads = num_threads();
  for (const Form form : kForms) {
    set_num_threads(1);
    const Named one = run_cell<float>(in, up, form, c.chunk);
    set_num_threads(4);
    EXPECT_EQ(run_cell<float>(in, up, form, c.chunk), one) << name_of_form(form);
  }
  set_num_threads(threads);
}

// The kernels' contract beyond the op: chunk states are recomputed if none were saved, and absent
// gradients are skipped.
TEST(MlstmCell, BackwardRecomputesChunkStatesAndSkipsAbsentGradients) {
  const auto inputs = cell_inputs(10);
  const auto empty = [](const Shape& s) { return Tensor::empty(s, DType::kF64); };
  mlstm::CellForwardArgs fwd;
  fwd.in = {.q = inputs[0],
            .k = inputs[1],
            .v = inputs[2],
            .i = inputs[3],
            .f = inputs[4],
            .chunk_size = 4};
  fwd.h = empty({1, 10, 2, 4});
  fwd.normaliser = empty({1, 10, 2});
  fwd.denominator_sign = empty({1, 10, 2});
  fwd.c_chunks = empty({1, 2, 3, 3, 4});
  fwd.n_chunks = empty({1, 2, 3, 3});
  mlstm::cell_fwd[static_cast<int>(Form::kChunkwise)](kCpu, fwd);
  mlstm::CellBackwardArgs bwd = testing::backward_args(fwd);
  bwd.dh = random_normal<double>({1, 10, 2, 4}, 9);
  std::vector<double> saved, recomputed;
  for (auto [chunks, dk] : {std::pair{true, &saved}, std::pair{false, &recomputed}}) {
    bwd.c_chunks = chunks ? fwd.c_chunks : Tensor{};
    bwd.n_chunks = chunks ? fwd.n_chunks : Tensor{};
    bwd.dk = empty({1, 10, 2, 3});
    mlstm::cell_bwd[static_cast<int>(Form::kChunkwise)](kCpu, bwd);
    *dk = bwd.dk.to_vector<double>();
  }
  EXPECT_EQ(recomputed, saved);
  for (const Form form : {Form::kRecurrent, Form::kParallel}) {
    bwd.dk = empty({1, 10, 2, 3});
    mlstm::cell_bwd[static_cast<int>(form)](kCpu, bwd);
    EXPECT_LE(relative_error(bwd.dk.to_vector<double>(), saved), 1e-13) << name_of_form(form);
  }
}

std::string refusal(const std::function<void(std::vector<Variable>&, mlstm::State&, Tensor&,
                                             mlstm::CellOptions&)>& spoil) {
  std::vector<Variable> x;
  for (const Shape& s :
       {Shape{2, 3, 1, 4}, Shape{2, 3, 1, 4}, Shape{2, 3, 1, 5}, Shape{2, 3, 1}, Shape{2, 3, 1}}) {
    x.emplace_back(random_normal<float>(s, 1));
  }
  mlstm::State initial;
  Tensor reset;
  mlstm::CellOptions options;
  spoil(x, initial, reset, options);
  try {
    mlstm::cell(x[0], x[1], x[2], x[3], x[4], initial, reset, options);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(MlstmCell, RefusesWhatDoesNotFitAndNamesIt) {
  using Inputs = std::vector<Variable>;
  using mlstm::CellOptions;
  using mlstm::State;
  const auto tensor = [](const Shape& s) { return Variable(random_normal<float>(s, 1)); };
  EXPECT_EQ(refusal([](Inputs&, State&, Tensor&, CellOptions&) {}), "accepted");
  EXPECT_EQ(refusal([&](Inputs& x, State&, Tensor&, CellOptions&) {
              x[0] = tensor({2, 3, 4});
            }),
            "[mlstm_cell] q f32 (2, 3, 4) on cpu, expected f32, bf16 or f64 (B, S, NH, DQK), not "
            "empty");
  EXPECT_EQ(
      refusal([&](Inputs& x, State&, Tensor&, CellOptions&) {
        x[0] = tensor({2, 0, 1, 4});
      }),
      "[mlstm_cell] q f32 (2, 0, 1, 4) on cpu, expected f32, bf16 or f64 (B, S, NH, DQK), not "
      "empty");
  EXPECT_EQ(refusal([&](Inputs& x, State&, Tensor&, CellOptions&) {
              x[1] = tensor({2, 3, 1, 5});
            }),
            "[mlstm_cell] k f32 (2, 3, 1, 5) on cpu, expected f32 (2, 3, 1, 4) for q f32 (2, 3, 1, "
            "4) on cpu");
  EXPECT_EQ(refusal([&](Inputs& x, State&, Tensor&, CellOptions&) { x[2] = {}; }),
            "[mlstm_cell] v undefined, expected (B, S, NH, DV), not empty");
  EXPECT_EQ(
      refusal([&](Inputs& x, State&, Tensor&, CellOptions&) {
        x[3] = Variable(Tensor::zeros({2, 3, 1}, DType::kBF16));
      }),
      "[mlstm_cell] i bf16 (2, 3, 1) on cpu, expected f32 (2, 3, 1) for q f32 (2, 3, 1, 4) on "
      "cpu");
  EXPECT_EQ(
      refusal([&](Inputs&, State&, Tensor& reset, CellOptions&) {
        reset = Tensor::zeros({3, 2}, DType::kU8);
      }),
      "[mlstm_cell] reset u8 (3, 2) on cpu, expected u8 (2, 3) for q f32 (2, 3, 1, 4) on cpu");
  EXPECT_EQ(refusal([&](Inputs&, State& initial, Tensor&, CellOptions&) {
              initial.c = tensor({2, 1, 4, 5});
            }),
            "[mlstm_cell] initial.n undefined against x f32 (2, 3, 1, 4) on cpu");
  EXPECT_EQ(refusal([&](Inputs&, State&, Tensor&, CellOptions& o) { o.chunk_size = 0; }),
            "[mlstm_cell] chunk_size 0, expected at least 1");
  EXPECT_EQ(refusal([&](Inputs&, State&, Tensor&, CellOptions& o) { o.eps = -1.0; }),
            "[mlstm_cell] eps -1, expected at least 0");
}

}  // namespace
}  // namespace carousel
