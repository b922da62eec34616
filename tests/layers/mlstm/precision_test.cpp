// Accuracy of the mLSTM cell in float32 and bf16, against the same computation in float64 or
// float32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "tests/layers/mlstm/cell_case.h"

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
using testing::relative_error;
using testing::rounded_to_bf16;
using testing::rounded_to_float;
using testing::run_cell;

// float32 against the same kernels in float64; the bound is the golden data's.
TEST(MlstmCellPrecision, Float32KeepsFiveDigits) {
  for (const bool sigmoid : {false, true}) {
    const CellCase c{.batch = 2,
                     .time = 150,
                     .heads = 2,
                     .dqk = 16,
                     .dv = 24,
                     .chunk = 64,
                     .gate = sigmoid ? InputGate::kSigmoid : InputGate::kExponential,
                     .initial = true,
                     .resets = {70}};
    const auto in = rounded_to_float(make_inputs(c, 1));
    const auto up = make_upstream(c, true, 2);
    const Named want = run_cell<double>(in, up, Form::kRecurrent, c.chunk);
    for (const Form form : kForms) {
      expect_close(run_cell<float>(in, up, form, c.chunk), want, 1e-5, name_of_form(form));
    }
  }
}

// Input gates to ±50 and forget gates from −40 to 40: weights span every exponent of float32. One
// token then often outweighs all others and the gradient of q cancels, which costs digits.
TEST(MlstmCellPrecision, Float32SurvivesExtremeGates) {
  const CellCase c{.batch = 1,
                   .time = 300,
                   .heads = 2,
                   .dqk = 8,
                   .dv = 8,
                   .initial = true,
                   .i_std = 25.0,
                   .f_mean = 0.0,
                   .f_std = 20.0};
  auto in = make_inputs(c, 3);
  for (double& i : in.i) i = std::clamp(i, -50.0, 50.0);
  for (double& f : in.f) f = std::clamp(f, -40.0, 40.0);
  in = rounded_to_float(in);
  const auto up = make_upstream(c, true, 4);
  const Named want = run_cell<double>(in, up, Form::kRecurrent, 64);
  for (const Form form : kForms) {
    expect_close(run_cell<float>(in, up, form, 64), want, 2e-4, name_of_form(form));
  }
}

// Eight tokens carried for thousands under a large stabiliser, by forget gates near 1: if the
// rounding of m went into the weights, they would be off by a relative 6e-5 in the end.
TEST(MlstmCellPrecision, Float32DoesNotDriftOverLongSequences) {
  const CellCase c{.batch = 1,
                   .time = 2000,
                   .heads = 1,
                   .dqk = 4,
                   .dv = 4,
                   .chunk = 64,
                   .i_mean = 40.0,
                   .i_std = 0.5,
                   .f_mean = 7.0,
                   .f_std = 0.0};
  auto in = make_inputs(c, 5);
  for (std::size_t t = 0; t < 8; ++t) in.i[t] = 45.0;
  for (auto* x : {&in.q, &in.k}) {  // a denominator far from zero: no digits are lost there
    for (double& e : *x) e = std::abs(e);
  }
  in = rounded_to_float(in);
  const auto up = make_upstream(c, false, 6);
  const Named want = run_cell<double>(in, up, Form::kRecurrent, c.chunk);
  for (const Form form : kForms) {
    const Named got = run_cell<float>(in, up, form, c.chunk);
    const double tolerance = form == Form::kRecurrent ? 4e-5 : 5e-6;
    for (std::size_t x = 0; x < got.size(); ++x) {
      // The last state is only defined up to e^m, and m is rounded.
      if (got[x].first.find("_last") != std::string::npos) continue;
      EXPECT_LE(relative_error(got[x].second, want[x].second), tolerance)
          << name_of_form(form) << " " << got[x].first;
    }
  }
}

// bf16 rounds h and the gradients once, 2⁻⁹ each, and reads the rounded h in the backward.
TEST(MlstmCellPrecision, Bf16IsWithinItsRounding) {
  const CellCase c{.batch = 2,
                   .time = 50,
                   .heads = 2,
                   .dqk = 8,
                   .dv = 12,
                   .chunk = 16,
                   .initial = true,
                   .resets = {20}};
  auto in = make_inputs(c, 7);
  for (auto* x : {&in.q, &in.k, &in.v}) *x = rounded_to_bf16(*x);
  in = rounded_to_float(in);
  auto up = make_upstream(c, true, 8);
  up.dh = rounded_to_bf16(up.dh);
  const Named want = run_cell<float>(in, up, Form::kRecurrent, c.chunk);
  for (const Form form : kForms) {
    expect_close(run_cell<bfloat16>(in, up, form, c.chunk), want, 0x1.0p-8, name_of_form(form));
  }
}

}  // namespace
}  // namespace carousel
