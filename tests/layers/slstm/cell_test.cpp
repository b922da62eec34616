#include "layers/slstm/cell.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/autograd/gradcheck.h"
#include "core/base/parallel.h"
#include "core/tensor/safetensors.h"
#include "tests/layers/slstm/cell_case.h"
#include "tests/support/devices.h"
#include "tests/support/errors.h"
#include "tests/support/golden.h"

namespace carousel {
namespace {

using testing::expect_all_close;
using testing::make_slstm_inputs;
using testing::make_slstm_upstream;
using testing::message_of;
using testing::NamedValues;
using testing::random_normal;
using testing::relative_error;
using testing::run_slstm;
using testing::slstm_oracle;
using testing::SlstmCase;
using testing::SlstmInputs;
using testing::SlstmUpstream;

// One token and one element, odd sizes, more rows than a register tile, few steps (where the
// product is not packed) and many, resets at the first token and in between.
std::vector<SlstmCase> cases() {
  std::vector<SlstmCase> all;
  for (const bool initial : {false, true}) {
    all.push_back({.batch = 1, .time = 1, .heads = 1, .size = 1, .initial = initial});
    all.push_back({.initial = initial});
    all.push_back({.batch = 3, .time = 11, .heads = 1, .initial = initial, .resets = {0, 3, 4}});
    all.push_back({.batch = 7, .time = 9, .heads = 3, .size = 1, .initial = initial});
    all.push_back({.batch = 1, .time = 8, .heads = 1, .size = 7, .initial = initial});
  }
  return all;
}

TEST(SlstmCell, MatchesTheRecurrenceAndItsComplexStepGradients) {
  int index = 0;
  for (const SlstmCase& c : cases()) {
    const auto in = make_slstm_inputs(c, 100);
    const auto up = make_slstm_upstream(c, true, 200);
    const NamedValues want = slstm_oracle(in, up);
    expect_all_close(run_slstm<double>(in, up), want, 1e-12, fmt::format("case {}, f64", index));
    expect_all_close(run_slstm<float>(in, up), want, 2e-6, fmt::format("case {}, f32", index));
    ++index;
  }
}

// Sizes that fill several panels and leave a rest, in both precisions; forward alone, because the
// oracle's gradients would take too long.
TEST(SlstmCell, MatchesTheRecurrenceForLargerHeads) {
  for (const std::int64_t size : {16, 37, 64}) {
    const SlstmCase c{.batch = 9, .time = 12, .size = size, .r_std = 0.1};
    const auto in = make_slstm_inputs(c, 1);
    const auto up = make_slstm_upstream(c, false, 2);
    const auto want = testing::slstm_forward(in);
    EXPECT_LE(relative_error(run_slstm<double>(in, up)[0].second, want.h), 1e-13) << size;
    EXPECT_LE(relative_error(run_slstm<float>(in, up)[0].second, want.h), 1e-6) << size;
  }
}

TEST(SlstmCell, Float32GradientsMatchFloat64ForLargerHeads) {
  for (const std::int64_t size : {16, 37, 64}) {
    const SlstmCase c{.batch = 9, .time = 12, .size = size, .resets = {5}, .r_std = 0.1};
    const auto in = make_slstm_inputs(c, 1);
    const auto up = make_slstm_upstream(c, true, 2);
    expect_all_close(run_slstm<float>(in, up), run_slstm<double>(in, up), 2e-6,
                     fmt::format("size {}", size));
  }
}

TEST(SlstmCell, GradientsOfALossOverHMatchDifferences) {
  // m cancels from h, so differences see the true gradient; the initial state is zero, where the
  // choice of m jumps.
  const Shape x{2, 4, 2, 3};
  const Shape state{2, 2, 3};
  std::vector<Tensor> inputs;
  for (std::uint64_t g = 0; g < 4; ++g) inputs.push_back(random_normal<double>(x, g));
  inputs.push_back(random_normal<double>({2, 4, 3, 3}, 4, 0.5));
  inputs.push_back(random_normal<double>({4, 2, 3}, 5));
  for (int s = 0; s < 3; ++s) inputs.push_back(Tensor::zeros(state, DType::kF64));
  const Variable m0(Tensor::zeros(state, DType::kF64));
  const Tensor reset =
      Tensor::from<std::uint8_t>(std::vector<std::uint8_t>{0, 0, 0, 1, 0, 1, 0, 0}, {2, 4});
  const auto fn = [&](const std::vector<Variable>& in) {
    return std::vector<Variable>{
        slstm::cell(in[0], in[1], in[2], in[3], in[4], in[5], {in[6], in[7], in[8], m0}, reset).h};
  };
  const auto result = gradcheck(fn, inputs);
  EXPECT_TRUE(result.ok) << result.report;
}

// Cuts a sequence in two, hands the last states over and sends gradients back through them.
TEST(SlstmCell, TwoSegmentsEqualOneRunWithAllGradients) {
  const SlstmCase c{.batch = 1, .time = 10, .heads = 2, .size = 5, .initial = true, .resets = {7}};
  const auto in = make_slstm_inputs(c, 1);
  const auto up = make_slstm_upstream(c, true, 2);
  const NamedValues whole = run_slstm<double>(in, up);

  constexpr std::size_t kCut = 4;
  const std::size_t width = in.heads * in.size;
  const auto segment = [&](const std::vector<double>& v, std::size_t begin, std::size_t end) {
    return std::vector<double>(v.begin() + static_cast<std::ptrdiff_t>(begin * width),
                               v.begin() + static_cast<std::ptrdiff_t>(end * width));
  };
  const auto cut = [&](std::size_t begin, std::size_t end) {
    SlstmInputs<double> part = in;
    part.time = end - begin;
    for (auto& x : part.x) x = segment(x, begin, end);
    part.reset.assign(in.reset.begin() + static_cast<std::ptrdiff_t>(begin),
                      in.reset.begin() + static_cast<std::ptrdiff_t>(end));
    return part;
  };
  const SlstmInputs<double> first_in = cut(0, kCut);
  SlstmUpstream first_up{segment(up.dh, 0, kCut), {}, {}, {}};
  const NamedValues forward = run_slstm<double>(first_in, first_up);
  SlstmInputs<double> second_in = cut(kCut, in.time);
  second_in.h0 = forward[1].second;
  second_in.c0 = forward[2].second;
  second_in.n0 = forward[3].second;
  second_in.m0 = forward[4].second;
  const NamedValues second = run_slstm<double>(
      second_in, {segment(up.dh, kCut, in.time), up.dh_last, up.dc_last, up.dn_last});
  first_up.dh_last = second[11].second;
  first_up.dc_last = second[12].second;
  first_up.dn_last = second[13].second;
  const NamedValues first = run_slstm<double>(first_in, first_up);

  NamedValues joined = second;  // the last states are the second segment's
  for (const std::size_t k :
       {0u, 5u, 6u, 7u, 8u}) {  // h and the gradients of x: one after the other
    joined[k].second = first[k].second;
    joined[k].second.insert(joined[k].second.end(), second[k].second.begin(),
                            second[k].second.end());
  }
  for (const std::size_t k : {9u, 10u}) {  // dr, db: the sum
    for (std::size_t e = 0; e < joined[k].second.size(); ++e) {
      joined[k].second[e] += first[k].second[e];
    }
  }
  for (const std::size_t k : {11u, 12u, 13u}) joined[k].second = first[k].second;
  expect_all_close(joined, whole, 1e-12, "joined");
}

TEST(SlstmCell, AResetForgetsEvenAStateThatOverflowed) {
  SlstmCase c{.batch = 1, .time = 6, .heads = 1, .size = 3};
  auto in = make_slstm_inputs(c, 1);
  auto alone = in;
  in.reset = {0, 0, 0, 1, 0, 0};
  for (std::size_t e = 0; e < 9; ++e) in.x[0][e] = 3e38;  // e^i is far beyond any float
  for (std::size_t e = 9; e < 12; ++e) in.x[0][e] = -90.0;
  alone.time = 3;
  for (std::size_t g = 0; g < 4; ++g) {
    alone.x[g].assign(in.x[g].begin() + 9, in.x[g].end());
  }
  const auto up = make_slstm_upstream(c, false, 2);
  const SlstmUpstream up_alone{{up.dh.begin() + 9, up.dh.end()}, {}, {}, {}};
  const NamedValues got = run_slstm<float>(in, up);
  const NamedValues want = run_slstm<float>(alone, up_alone);
  for (const std::size_t k : {0u, 5u, 6u, 7u, 8u}) {
    const std::vector<double> tail(got[k].second.begin() + 9, got[k].second.end());
    EXPECT_EQ(tail, want[k].second) << got[k].first;
  }
}

TEST(SlstmCell, ExtremeGatesStayFinite) {
  const SlstmCase c{.batch = 2, .time = 20, .heads = 1, .size = 4};
  auto in = make_slstm_inputs(c, 1);
  for (std::size_t e = 0; e < in.x[0].size(); ++e) {
    const double sign = e % 3 == 0 ? 1.0 : -1.0;
    for (std::size_t g = 0; g < 4; ++g) in.x[g][e] = sign * 200.0 * in.x[g][e];
  }
  for (const auto& [name, values] : run_slstm<float>(in, make_slstm_upstream(c, true, 2))) {
    for (const double v : values) EXPECT_TRUE(std::isfinite(v)) << name;
  }
}

TEST(SlstmCell, AZeroInitialStateIsNoInitialState) {
  const SlstmCase c{};
  auto in = make_slstm_inputs(c, 1);
  const auto up = make_slstm_upstream(c, false, 2);
  const NamedValues absent = run_slstm<float>(in, up);
  in.h0 = in.c0 = in.n0 = in.m0 = std::vector<double>(12, 0.0);
  const NamedValues zero = run_slstm<float>(in, up);
  for (std::size_t k = 0; k < 11; ++k) {
    EXPECT_LE(relative_error(zero[k].second, absent[k].second), 1e-6) << absent[k].first;
  }
}

// The inputs are bf16 numbers, so bf16 can only lose by rounding h, the gradients and dh.
TEST(SlstmCell, Bf16IsWithinItsRounding) {
  const SlstmCase c{.batch = 3, .time = 40, .size = 8, .resets = {17}};
  auto in = make_slstm_inputs(c, 1);
  auto up = make_slstm_upstream(c, false, 2);
  const auto round = [](std::vector<double>& v) {
    for (double& e : v) e = static_cast<float>(bfloat16(static_cast<float>(e)));
  };
  for (auto& x : in.x) round(x);
  round(up.dh);
  expect_all_close(run_slstm<bfloat16>(in, up), run_slstm<float>(in, up), 0x1.0p-8, "bf16");
}

TEST(SlstmCell, RepeatsItsBitsAndDoesNotDependOnTheNumberOfThreads) {
  const SlstmCase c{.batch = 5, .time = 9, .heads = 3, .size = 9, .resets = {4}};
  const auto in = make_slstm_inputs(c, 1);
  const auto up = make_slstm_upstream(c, true, 2);
  const int threads = num_threads();
  const NamedValues first = run_slstm<float>(in, up);
  EXPECT_EQ(first, run_slstm<float>(in, up));
  for (const int n : {1, 3, 16}) {
    set_num_threads(n);
    expect_all_close(run_slstm<float>(in, up), first, 1e-6, fmt::format("{} threads", n));
  }
  set_num_threads(threads);
}

TEST(SlstmCell, ComputesOnlyTheGradientsThatAreNeeded) {
  const SlstmCase c{};
  const auto in = make_slstm_inputs(c, 1);
  const auto up = make_slstm_upstream(c, false, 2);
  const NamedValues want = run_slstm<double>(in, up);
  const Shape token{2, 5, 2, 3};
  const auto constant = [&](std::size_t g) {
    return Variable(Tensor::from<double>(in.x[g], token));
  };
  const Variable f =
      Variable::leaf(Tensor::from<double>(in.x[1], token), Tensor::zeros(token, DType::kF64));
  const Variable h = slstm::cell(constant(0), f, constant(2), constant(3),
                                 Variable(Tensor::from<double>(in.r, {2, 4, 3, 3})),
                                 Variable(Tensor::from<double>(in.b, {4, 2, 3})), {}, {})
                         .h;
  backward(h, Tensor::from<double>(up.dh, token));
  EXPECT_LE(relative_error(f.grad().to_vector<double>(), want[6].second), 1e-14);
}

TEST(SlstmCell, RefusesMismatchedInputsNamingThem) {
  const auto x = [](const Shape& s) { return Variable(random_normal<float>(s, 1)); };
  const Variable good = x({2, 3, 2, 4});
  const Variable r = x({2, 4, 4, 4});
  const Variable b = x({4, 2, 4});
  EXPECT_EQ(
      message_of<UsageError>([&] {
        slstm::cell(x({2, 3, 8}), good, good, good, r, b, {}, {});
      }),
      "[slstm_cell] i f32 (2, 3, 8) on cpu, expected f32, bf16 or f64 (B, S, NH, D), not empty");
  EXPECT_EQ(
      message_of<UsageError>([&] {
        slstm::cell(good, good, x({2, 3, 2, 5}), good, r, b, {}, {});
      }),
      "[slstm_cell] z f32 (2, 3, 2, 5) on cpu, expected f32 (2, 3, 2, 4) for x f32 (2, 3, 2, 4) "
      "on cpu");
  EXPECT_EQ(
      message_of<UsageError>([&] {
        slstm::cell(good, good, good, good, x({2, 16, 4}), b, {}, {});
      }),
      "[slstm_cell] r f32 (2, 16, 4) on cpu, expected f32 (2, 4, 4, 4) for x f32 (2, 3, 2, 4) "
      "on cpu");
  EXPECT_EQ(
      message_of<UsageError>([&] { slstm::cell(good, good, good, good, r, x({32}), {}, {}); }),
      "[slstm_cell] b f32 (32) on cpu, expected f32 (4, 2, 4) for x f32 (2, 3, 2, 4) on cpu");
  EXPECT_EQ(message_of<UsageError>([&] {
              slstm::cell(good, good, good, good, r, b, {.h = x({2, 2, 4})}, {});
            }),
            "[slstm_cell] initial.c undefined against x f32 (2, 3, 2, 4) on cpu");
  EXPECT_EQ(
      message_of<UsageError>([&] {
        slstm::cell(good, good, good, good, r, b, {}, random_normal<float>({2, 3}, 1));
      }),
      "[slstm_cell] reset f32 (2, 3) on cpu, expected u8 (2, 3) for x f32 (2, 3, 2, 4) on cpu");
}

// out[…, i, j, …] = in[…, j, i, …]: exchanges dimensions 1 and 2 of (a, n, m, c).
std::vector<double> exchange(const std::vector<double>& in, std::size_t a, std::size_t n,
                             std::size_t m, std::size_t c) {
  std::vector<double> out;
  for (std::size_t x = 0; x < a; ++x) {
    for (std::size_t j = 0; j < m; ++j) {
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t y = 0; y < c; ++y) out.push_back(in[((x * n + i) * m + j) * c + y]);
      }
    }
  }
  return out;
}

// The file's layouts: Wx (B,S,4,NH,D) and R (4,NH,in,out).
SlstmInputs<double> golden_inputs(const SafetensorsFile& file, const std::string& prefix) {
  const auto load = [&](const char* name) { return testing::to_doubles(file.load(prefix + name)); };
  const Shape shape = file.info(prefix + "Wx").shape;
  const auto dim = [&](int i) { return static_cast<std::size_t>(shape[i]); };
  SlstmInputs<double> in;
  in.batch = dim(0);
  in.time = dim(1);
  in.heads = dim(3);
  in.size = dim(4);
  const std::size_t tokens = in.batch * in.time;
  const std::size_t width = in.heads * in.size;
  const auto x = exchange(load("Wx"), 1, tokens, 4, width);
  for (std::size_t g = 0; g < 4; ++g) {
    in.x[g].assign(x.begin() + static_cast<std::ptrdiff_t>(g * tokens * width),
                   x.begin() + static_cast<std::ptrdiff_t>((g + 1) * tokens * width));
  }
  const auto r = exchange(load("R"), 4 * in.heads, in.size, in.size, 1);
  in.r = exchange(r, 1, 4, in.heads, in.size * in.size);
  in.b = load("b");
  in.h0 = load("h0");
  in.c0 = load("c0");
  in.n0 = load("n0");
  in.m0 = load("m0");
  return in;
}

// Relative errors of outputs and gradients, by the file's names.
template <class T>
std::vector<std::pair<std::string, double>> golden_errors(const SafetensorsFile& file,
                                                          const std::string& prefix,
                                                          Device device = kCpu) {
  const SlstmInputs<double> in = golden_inputs(file, prefix);
  const auto load = [&](const char* name) { return testing::to_doubles(file.load(prefix + name)); };
  const NamedValues got = run_slstm<T>(in, {load("dh"), {}, {}, {}}, device);
  std::vector<std::pair<std::string, double>> errors;
  const auto compare = [&](const char* name, const std::vector<double>& values) {
    errors.emplace_back(prefix + name, relative_error(values, load(name)));
  };
  compare("h", got[0].second);
  compare("h_last", got[1].second);
  compare("c_last", got[2].second);
  compare("n_last", got[3].second);
  compare("m_last", got[4].second);
  std::vector<double> dx;
  for (std::size_t g = 5; g < 9; ++g) {
    dx.insert(dx.end(), got[g].second.begin(), got[g].second.end());
  }
  compare("dWx", exchange(dx, 1, 4, in.batch * in.time, in.heads * in.size));
  const auto dr = exchange(got[9].second, 1, in.heads, 4, in.size * in.size);
  compare("dR", exchange(dr, 4 * in.heads, in.size, in.size, 1));
  compare("db", got[10].second);
  if (file.contains(prefix + "dh0")) {
    compare("dh0", got[11].second);
    compare("dc0", got[12].second);
    compare("dn0", got[13].second);
  }
  return errors;
}

TEST(SlstmCellGolden, OutputsStatesAndGradientsMatch) {
  const SafetensorsFile file(testing::golden_path("slstm_cell.safetensors"));
  int cases_seen = 0;
  for (; file.contains(fmt::format("case{}.Wx", cases_seen)); ++cases_seen) {
    for (const auto& [name, error] :
         golden_errors<float>(file, fmt::format("case{}.", cases_seen))) {
      EXPECT_LE(error, 1e-5) << name;
    }
  }
  EXPECT_GE(cases_seen, 1);
}

TEST(CudaReference, TheSlstmCellReproducesEveryCase) {
  CAROUSEL_REQUIRE_CUDA();
  const SafetensorsFile file(testing::golden_path("slstm_cell.safetensors"));
  for (int c = 0; file.contains(fmt::format("case{}.Wx", c)); ++c) {
    const std::string prefix = fmt::format("case{}.", c);
    for (const auto& [name, error] : golden_errors<float>(file, prefix, testing::kGpu)) {
      EXPECT_LE(error, 5e-5) << name;
    }
    const auto cpu = golden_errors<bfloat16>(file, prefix);
    const auto gpu = golden_errors<bfloat16>(file, prefix, testing::kGpu);
    for (std::size_t i = 0; i < gpu.size(); ++i) {
      EXPECT_LE(gpu[i].second, 2.0 * cpu[i].second + 0x1.0p-8)
          << gpu[i].first << ", the CPU's error is " << cpu[i].second;
    }
  }
}

}  // namespace
}  // namespace carousel
