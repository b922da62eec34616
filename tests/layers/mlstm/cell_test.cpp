#include "layers/mlstm/cell.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/autograd/gradcheck.h"
#include "core/base/parallel.h"
#include "tests/layers/mlstm/cell_case.h"

namespace carousel {
namespace {

using mlstm::Form;
using mlstm::InputGate;
using testing::CellCase;
using testing::expect_close;
using testing::make_inputs;
using testing::make_upstream;
using testing::Named;
using testing::oracle;
using testing::random_normal;
using testing::relative_error;
using testing::run_cell;

constexpr Form kForms[] = {Form::kRecurrent, Form::kParallel, Form::kChunkwise};
const char* name_of_form(Form form) {
  constexpr const char* kNames[] = {"recurrent", "parallel", "chunkwise"};
  return kNames[static_cast<int>(form)];
}

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

}  // namespace
}  // namespace carousel
