#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "core/kernels/elementwise.h"
#include "layers/mlstm/cell.h"
#include "tests/layers/mlstm/cell_case.h"
#include "tests/layers/mlstm/each_kernels.h"
#include "tests/layers/mlstm/plain_bf16.h"
#include "tests/support/checker.h"
#include "tests/support/devices.h"

namespace carousel {
namespace {

using mlstm::Form;
using mlstm::InputGate;
using testing::CellCase;
using testing::expect_close;
using testing::kForms;
using testing::kGpu;
using testing::make_inputs;
using testing::make_upstream;
using testing::name_of_form;
using testing::Named;
using testing::oracle;
using testing::relative_error;
using testing::run_cell;
using testing::under_checker;

using Cases = std::vector<CellCase>;

// The CPU's float64 chunkwise kernels, which their own tests hold against the recurrence.
Named reference(const testing::MlstmInputs<double>& in, const testing::Upstream& up) {
  return run_cell<double>(in, up, Form::kChunkwise, 64);
}

const std::vector<double>& find(const Named& list, const std::string& name) {
  for (const auto& [key, value] : list) {
    if (key == name) return value;
  }
  throw InternalError("no {}", name);
}

// For looking at what the tolerances leave room for.
void print_errors(const std::string& what, double error, double measure) {
  if (std::getenv("CAROUSEL_PRINT_ERRORS") != nullptr) {
    fmt::print("{}: {:.2e}, measure {:.2e}\n", what, error, measure);
  }
}

// Every output and gradient in bf16: within 1e-2 of float64, and at most twice what the plainest
// bf16 computation errs.
void expect_as_good_as_plain(const CellCase& c, Form form, const std::string& what) {
  auto in = make_inputs(c, 300);
  auto up = make_upstream(c, false, 400);
  round_inputs(in, up);
  const Named want = reference(in, up);
  const Named got = run_cell<bfloat16>(in, up, form, c.chunk, kGpu);
  for (const auto& [name, plain] : plain_bf16(in, up)) {
    const double error = relative_error(find(got, name), find(want, name));
    const double plain_error = relative_error(plain, find(want, name));
    EXPECT_LE(error, 1e-2) << what << ": " << name;
    EXPECT_LE(error, 2.0 * plain_error) << what << ": " << name;
    print_errors(what + " " + name, error, plain_error);
  }
}

TEST(CudaMlstmCell, Float32MatchesTheRecurrenceAtOddSizes) {
  CAROUSEL_REQUIRE_CUDA();
  int index = 0;
  for (const InputGate gate : {InputGate::kExponential, InputGate::kSigmoid}) {
    for (const bool initial : {false, true}) {
      for (const CellCase& c :
           {CellCase{.gate = gate, .initial = initial},
            CellCase{.time = 12, .dqk = 7, .dv = 2, .gate = gate, .initial = initial},
            CellCase{.gate = gate, .initial = initial, .resets = {0, 2, 7, 8}},
            CellCase{.time = 1, .dqk = 1, .dv = 1, .gate = gate, .initial = initial}}) {
        const auto in = make_inputs(c, 100);
        const auto up = make_upstream(c, true, 200);
        const Named want = oracle(in, up);
        for (const Form form : kForms) {
          expect_close(run_cell<float>(in, up, form, c.chunk, kGpu), want, 1e-5,
                       fmt::format("case {} {}", index, name_of_form(form)));
        }
        ++index;
      }
    }
  }
}

// Small denominators magnify rounding, whatever the kernel: dq and dk grow as 1/N², so where N is a
// hundredth of its sum's terms, their 2^-24 arrives as 1e-5 and more. At 1300 steps the CPU's
// float32 kernels err 3.4e-5. The measure is therefore what those err on the same inputs; the
// tensor cores' accumulators, which truncate where the CPU rounds, take up to 2.8 times as much.
TEST(CudaMlstmCell, Float32IsAsGoodAsTheCpuOverManyBlocksAndChunks) {
  CAROUSEL_REQUIRE_CUDA();
  const CellCase extreme{
      .batch = 1, .time = 400, .dqk = 16, .dv = 16, .i_std = 20.0, .f_std = 20.0};
  Cases cases{{.time = 517, .dqk = 40, .dv = 72, .initial = true, .resets = {63, 128, 300, 301}},
              {.batch = 1, .time = 1300, .heads = 3, .dqk = 130, .dv = 33, .f_mean = 4.0},
              {.batch = 1,
               .time = 321,
               .dqk = 300,
               .dv = 270,
               .gate = InputGate::kSigmoid,
               .initial = true},
              extreme};
  if (under_checker()) {
    cases = {{.batch = 1, .time = 133, .dqk = 40, .dv = 72, .initial = true, .resets = {63, 128}},
             {.batch = 1, .time = 200, .heads = 1, .dqk = 130, .dv = 33, .f_mean = 4.0},
             {.batch = 1,
              .time = 130,
              .heads = 1,
              .dqk = 300,
              .dv = 270,
              .gate = InputGate::kSigmoid,
              .initial = true},
             extreme};
  }
  for (const CellCase& c : cases) {
    const auto in = make_inputs(c, 100);
    const auto up = make_upstream(c, true, 200);
    const Named want = reference(in, up);
    const Named cpu = run_cell<float>(in, up, Form::kChunkwise, 64);
    for (const Form form : kForms) {
      const Named got = run_cell<float>(in, up, form, c.chunk, kGpu);
      for (const auto& [name, value] : want) {
        const double error = relative_error(find(got, name), value);
        const double cpu_error = relative_error(find(cpu, name), value);
        EXPECT_LE(error, 3.0 * cpu_error + 1e-5)
            << "time " << c.time << " " << name_of_form(form) << ": " << name;
        print_errors(fmt::format("f32 time {} {} {}", c.time, name_of_form(form), name), error,
                     cpu_error);
      }
    }
  }
}

class CudaMlstmBf16 : public testing::EachKernels {};
INSTANTIATE_TEST_SUITE_P(All, CudaMlstmBf16, testing::kAllKernels, testing::name_of_kernels);

// Head sizes of the Hopper kernels and of the others; both gates; random, long-memory, extreme and
// reset inputs.
TEST_P(CudaMlstmBf16, IsAsGoodAsThePlainComputation) {
  CAROUSEL_REQUIRE_CUDA();
  const auto name = [](const CellCase& c, Form form) {
    return fmt::format("{} dqk {} dv {} time {}", name_of_form(form), c.dqk, c.dv, c.time);
  };
  const CellCase one_token{.batch = 1, .time = 1, .dqk = 64, .dv = 64};
  const CellCase odd{.batch = 1, .time = 130, .dqk = 33, .dv = 45, .resets = {3}};
  // So many heads that a block of the Hopper kernels takes two tiles of the state.
  const CellCase many{.batch = 1, .time = 130, .heads = 67, .dqk = 128, .dv = 136, .resets = {70}};
  Cases cases{{.batch = 1, .time = 512, .dqk = 256, .dv = 512, .f_mean = 3.0},
              {.batch = 2, .time = 300, .heads = 3, .dqk = 128, .dv = 256},
              {.batch = 1, .time = 333, .dqk = 128, .dv = 128, .gate = InputGate::kSigmoid},
              {.batch = 2, .time = 257, .dqk = 96, .dv = 192, .resets = {5, 64, 127, 200, 201}},
              {.batch = 1, .time = 640, .dqk = 64, .dv = 64, .f_mean = 6.0},
              {.batch = 1, .time = 300, .dqk = 64, .dv = 72, .i_std = 15.0, .f_std = 15.0},
              one_token,
              odd,
              many,
              {.batch = 3, .time = 65, .heads = 23, .dqk = 64, .dv = 256, .f_mean = 3.0},
              {.batch = 1, .time = 200, .dqk = 40, .dv = 24, .f_mean = 3.0},
              {.batch = 1, .time = 200, .dqk = 320, .dv = 136, .resets = {70}}};
  // Each width of the Hopper kernels in several segments, and what they do not take.
  if (under_checker()) {
    cases = {
        {.batch = 1, .time = 130, .heads = 1, .dqk = 256, .dv = 256, .f_mean = 3.0},
        {.batch = 1, .time = 129, .heads = 1, .dqk = 128, .dv = 256},
        {.batch = 1, .time = 130, .heads = 1, .dqk = 96, .dv = 192, .resets = {5, 64, 127}},
        {.batch = 1, .time = 257, .heads = 1, .dqk = 64, .dv = 64, .gate = InputGate::kSigmoid},
        one_token,
        odd,
        many,
        {.batch = 1, .time = 130, .heads = 1, .dqk = 320, .dv = 136, .resets = {70}}};
  }
  for (const CellCase& c : cases) {
    for (const Form form : forms()) expect_as_good_as_plain(c, form, name(c, form));
  }
}

// What the plain computation above leaves out: initial states and gradients that arrive at the last
// one.
TEST_P(CudaMlstmBf16, TakesAndGivesStates) {
  CAROUSEL_REQUIRE_CUDA();
  for (const CellCase& base :
       {CellCase{.batch = 1, .time = 300, .dqk = 256, .dv = 160, .initial = true, .f_mean = 5.0},
        CellCase{.batch = 2, .time = 129, .dqk = 64, .dv = 256, .initial = true, .f_mean = 5.0},
        CellCase{.batch = 1, .time = 200, .dqk = 128, .dv = 256, .initial = true, .resets = {150}},
        CellCase{.batch = 1, .time = 200, .dqk = 20, .dv = 12, .initial = true}}) {
    auto in = make_inputs(base, 300);
    auto up = make_upstream(base, true, 400);
    round_inputs(in, up);
    const Named want = reference(in, up);
    for (const Form form : forms()) {
      expect_close(run_cell<bfloat16>(in, up, form, base.chunk, kGpu), want, 1e-2,
                   fmt::format("dqk {} dv {} {}", base.dqk, base.dv, name_of_form(form)));
    }
  }
}

// Few heads and a long sequence: the walk is cut into segments.
TEST_P(CudaMlstmBf16, WalksSegmentsAtOnce) {
  CAROUSEL_REQUIRE_CUDA();
  CellCase c{
      .batch = 1, .time = 2500, .heads = 1, .dqk = 64, .dv = 128, .initial = true, .f_mean = 7.0};
  for (const bool resets : {false, true}) {
    if (resets) c.resets = {700, 1281};
    auto in = make_inputs(c, 300);
    auto up = make_upstream(c, true, 400);
    round_inputs(in, up);
    expect_close(run_cell<bfloat16>(in, up, Form::kChunkwise, c.chunk, kGpu), reference(in, up),
                 1e-2, resets ? "with resets" : "without resets");
  }
}

// The second case has more chunks than the GPU has multiprocessors: about twice as many, or under a
// checker a few more.
TEST_P(CudaMlstmBf16, TwoRunsGiveTheSameBits) {
  CAROUSEL_REQUIRE_CUDA();
  Cases cases{{.batch = 2, .time = 390, .dqk = 128, .dv = 256, .initial = true, .resets = {50}},
              {.batch = 2, .time = 2048, .heads = 8, .dqk = 256, .dv = 128, .f_mean = 4.0}};
  if (under_checker()) {
    cases = {{.batch = 1,
              .time = 130,
              .heads = 1,
              .dqk = 128,
              .dv = 256,
              .initial = true,
              .resets = {50}},
             {.batch = 1, .time = 129, .heads = 70, .dqk = 64, .dv = 8, .f_mean = 4.0}};
  }
  for (const CellCase& c : cases) {
    const auto in = make_inputs(c, 1);
    const auto up = make_upstream(c, true, 2);
    for (const Form form : forms()) {
      const Named first = run_cell<bfloat16>(in, up, form, c.chunk, kGpu);
      const Named second = run_cell<bfloat16>(in, up, form, c.chunk, kGpu);
      for (std::size_t x = 0; x < first.size(); ++x) {
        EXPECT_EQ(first[x].second, second[x].second)
            << name_of_form(form) << ": " << first[x].first << " of " << c.time;
      }
    }
  }
}

// One token at a time through the decoding kernel, against one scan.
TEST(CudaMlstmCell, DecodingStepsMakeUpTheSequence) {
  CAROUSEL_REQUIRE_CUDA();
  const NoGrad no_grad;
  for (const std::int64_t dv : {64, 37}) {
    const std::int64_t batch = 2, time = 6, heads = 3, dqk = 48;
    const auto leaf = [](const Tensor& t) { return Variable(t); };
    const auto slice_of = [&](const Tensor& t, std::int64_t step) {  // time-major copy
      return t.slice(step, step + 1);
    };
    const auto random = [&](std::int64_t width,
                            std::uint64_t seed) {  // (time, batch, heads, width)
      return testing::random_normal<float>({time, batch, heads, width}, seed);
    };
    const Tensor q = random(dqk, 1), k = random(dqk, 2), v = random(dv, 3);
    const Tensor i = random(1, 4), f = random(1, 5);
    mlstm::State state;
    const mlstm::CellOptions options{.form = Form::kRecurrent, .return_last_state = true};
    for (std::int64_t step = 0; step < time; ++step) {
      const auto tokens = [&](const Tensor& t, Device device) {
        return leaf(slice_of(t, step).to(device).reshape({batch, 1, heads, t.dim(3)}));
      };
      const auto gates = [&](const Tensor& t, Device device) {
        return leaf(slice_of(t, step).to(device).reshape({batch, 1, heads}));
      };
      const auto on = [&](const Variable& x, Device device) {
        return x.defined() ? leaf(x.value().to(device)) : x;
      };
      const Tensor reset = Tensor::from<std::uint8_t>(
          std::vector<std::uint8_t>{0, static_cast<std::uint8_t>(step == 3)}, {batch, 1});
      const auto run = [&](Device device) {
        return mlstm::cell(tokens(q, device), tokens(k, device), tokens(v, device),
                           gates(i, device), gates(f, device),
                           {on(state.c, device), on(state.n, device), on(state.m, device)},
                           reset.to(device), options);
      };
      const mlstm::CellResult want = run(kCpu);
      const mlstm::CellResult got = run(kGpu);
      EXPECT_LE(relative_error(got.h.value(), want.h.value()), 1e-5) << step;
      EXPECT_LE(relative_error(got.last.c.value(), want.last.c.value()), 1e-6) << step;
      EXPECT_LE(relative_error(got.last.n.value(), want.last.n.value()), 1e-6) << step;
      EXPECT_LE(relative_error(got.last.m.value(), want.last.m.value()), 1e-6) << step;
      state = got.last;
    }
  }
}

// Gradients that nobody asked for are not computed, and do not change the others.
TEST_P(CudaMlstmBf16, AnySubsetOfGradientsIsTheSame) {
  CAROUSEL_REQUIRE_CUDA();
  const CellCase c{.batch = 1, .time = 200, .dqk = 64, .dv = 128};
  const auto in = make_inputs(c, 1);
  const auto up = make_upstream(c, false, 2);
  for (const Form form : forms()) {
    const Named all = run_cell<bfloat16>(in, up, form, c.chunk, kGpu);
    const auto tensor = [&](const std::vector<double>& x, std::int64_t width, DType dtype) {
      const Tensor t = Tensor::from<double>(x, {c.batch, c.time, c.heads, width});
      const Tensor narrow = Tensor::empty(t.shape(), dtype);
      cast(kCpu, {t, narrow});
      return narrow.to(kGpu);
    };
    const Variable q(tensor(in.q, c.dqk, DType::kBF16));
    const Variable k(tensor(in.k, c.dqk, DType::kBF16));
    const Tensor v = tensor(in.v, c.dv, DType::kBF16);
    const Shape gates{c.batch, c.time, c.heads};
    const Variable i(tensor(in.i, 1, DType::kF32).reshape(gates));
    const Tensor f = tensor(in.f, 1, DType::kF32).reshape(gates);
    const Variable v_leaf = Variable::leaf(v, Tensor::zeros(v.shape(), DType::kF32, kGpu));
    const mlstm::CellResult only_v =
        mlstm::cell(q, k, v_leaf, i, Variable(f), {}, {}, {.form = form});
    backward({only_v.h}, {tensor(up.dh, c.dv, DType::kBF16)});
    EXPECT_EQ(testing::to_doubles(v_leaf.grad()), find(all, "dv")) << name_of_form(form);
    const Variable f_leaf = Variable::leaf(f, Tensor::zeros(gates, DType::kF32, kGpu));
    const mlstm::CellResult only_f =
        mlstm::cell(q, k, Variable(v), i, f_leaf, {}, {}, {.form = form});
    backward({only_f.h}, {tensor(up.dh, c.dv, DType::kBF16)});
    EXPECT_EQ(testing::to_doubles(f_leaf.grad()), find(all, "df")) << name_of_form(form);
  }
}

TEST(CudaMlstmCell, Float64IsRefusedWithARemedy) {
  CAROUSEL_REQUIRE_CUDA();
  const CellCase c;
  try {
    run_cell<double>(make_inputs(c, 1), make_upstream(c, false, 2), Form::kChunkwise, 4, kGpu);
    FAIL() << "expected UsageError";
  } catch (const UsageError& e) {
    EXPECT_NE(std::string(e.what()).find("use f32 or bf16"), std::string::npos) << e.what();
  }
}

TEST(CudaMlstmCell, TooLongARowIsRefusedByTheRecurrentForm) {
  CAROUSEL_REQUIRE_CUDA();
  const CellCase c{.batch = 1, .time = 2, .heads = 1, .dqk = 1, .dv = 1025};
  try {
    run_cell<float>(make_inputs(c, 1), make_upstream(c, false, 2), Form::kRecurrent, 4, kGpu);
    FAIL() << "expected UsageError";
  } catch (const UsageError& e) {
    EXPECT_NE(std::string(e.what()).find("use the chunkwise form"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace carousel
