// One description of an mLSTM cell case buys the inputs, the run through the differentiable op and
// the oracle's answer, all as named lists of doubles.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "layers/mlstm/cell.h"
#include "tests/reference/mlstm_reference.h"
#include "tests/support/random.h"

namespace carousel::testing {

inline constexpr mlstm::Form kForms[] = {mlstm::Form::kRecurrent, mlstm::Form::kParallel,
                                         mlstm::Form::kChunkwise};
inline const char* name_of_form(mlstm::Form form) {
  constexpr const char* kNames[] = {"recurrent", "parallel", "chunkwise"};
  return kNames[static_cast<int>(form)];
}

struct CellCase {
  std::int64_t batch = 2, time = 13, heads = 2, dqk = 3, dv = 5;
  int chunk = 4;
  mlstm::InputGate gate = mlstm::InputGate::kExponential;
  bool initial = false;
  std::vector<std::int64_t> resets;  ///< of batch 0; batch b resets b tokens later
  double i_mean = 0.0, i_std = 2.0, f_mean = 1.0, f_std = 2.0;
  double eps = 1e-6;
};

/// Rounded to what float32 or bf16 can hold, so that narrow and wide runs see the same numbers.
inline std::vector<double> rounded_to_float(const std::vector<double>& x) {
  const std::vector<float> narrow(x.begin(), x.end());
  return {narrow.begin(), narrow.end()};
}

inline std::vector<double> rounded_to_bf16(const std::vector<double>& x) {
  std::vector<double> out;
  for (const double e : x) out.push_back(static_cast<float>(bfloat16(static_cast<float>(e))));
  return out;
}

inline MlstmInputs<double> rounded_to_float(MlstmInputs<double> in) {
  for (auto* x : {&in.q, &in.k, &in.v, &in.i, &in.f, &in.c0, &in.n0, &in.m0}) {
    *x = rounded_to_float(*x);
  }
  return in;
}

inline std::vector<double> normals(std::int64_t n, std::uint64_t seed, double std = 1.0,
                                   double mean = 0.0) {
  return random_normal<double>({n}, seed, std, mean).to_vector<double>();
}

inline MlstmInputs<double> make_inputs(const CellCase& c, std::uint64_t seed) {
  const std::int64_t tokens = c.batch * c.time * c.heads;
  MlstmInputs<double> in;
  in.batch = static_cast<std::size_t>(c.batch);
  in.time = static_cast<std::size_t>(c.time);
  in.heads = static_cast<std::size_t>(c.heads);
  in.dqk = static_cast<std::size_t>(c.dqk);
  in.dv = static_cast<std::size_t>(c.dv);
  in.sigmoid_input_gate = c.gate == mlstm::InputGate::kSigmoid;
  in.eps = c.eps;
  in.q = normals(tokens * c.dqk, seed);
  in.k = normals(tokens * c.dqk, seed + 1);
  in.v = normals(tokens * c.dv, seed + 2);
  in.i = normals(tokens, seed + 3, c.i_std, c.i_mean);
  in.f = normals(tokens, seed + 4, c.f_std, c.f_mean);
  if (c.initial) {
    const std::int64_t units = c.batch * c.heads;
    in.c0 = normals(units * c.dqk * c.dv, seed + 5);
    in.n0 = normals(units * c.dqk, seed + 6);
    in.m0 = in.sigmoid_input_gate ? std::vector<double>(static_cast<std::size_t>(units), 0.0)
                                  : normals(units, seed + 7);
  }
  if (!c.resets.empty()) {
    in.reset.assign(static_cast<std::size_t>(c.batch * c.time), 0);
    for (std::int64_t b = 0; b < c.batch; ++b) {
      for (const std::int64_t t : c.resets) {
        if (t + b < c.time) in.reset[static_cast<std::size_t>(b * c.time + t + b)] = 1;
      }
    }
  }
  return in;
}

/// Gradients that arrive at h, c_last and n_last; the last two are empty unless wanted.
struct Upstream {
  std::vector<double> dh, dc_last, dn_last;
};

inline Upstream make_upstream(const CellCase& c, bool at_last_state, std::uint64_t seed) {
  Upstream up;
  up.dh = normals(c.batch * c.time * c.heads * c.dv, seed);
  if (at_last_state) {
    up.dc_last = normals(c.batch * c.heads * c.dqk * c.dv, seed + 1);
    up.dn_last = normals(c.batch * c.heads * c.dqk, seed + 2);
  }
  return up;
}

using Named = std::vector<std::pair<std::string, std::vector<double>>>;

inline Named oracle(const MlstmInputs<double>& in, const Upstream& up) {
  const MlstmOutputs<double> out = mlstm_forward(in);
  const MlstmGradients g = mlstm_gradients(in, up.dh, up.dc_last, up.dn_last);
  return {{"h", out.h},
          {"c_last", out.c_last},
          {"n_last", out.n_last},
          {"m_last", out.m_last},
          {"dq", g.q},
          {"dk", g.k},
          {"dv", g.v},
          {"di", g.i},
          {"df", g.f},
          {"dc0", g.c0},
          {"dn0", g.n0}};
}

/// The op and its backward with q, k, v in T.
template <class T>
Named run_cell(const MlstmInputs<double>& in, const Upstream& up, mlstm::Form form, int chunk,
               Device device = kCpu) {
  const auto d = [](std::size_t n) { return static_cast<std::int64_t>(n); };
  constexpr DType kAccumulation = accumulation_dtype(dtype_of<T>);
  const auto tensor = [&](const std::vector<double>& x, const Shape& shape, DType dtype) {
    if (dtype == DType::kF64) return Tensor::from<double>(x, shape, device);
    const std::vector<float> narrow(x.begin(), x.end());
    if (dtype == DType::kF32) return Tensor::from<float>(narrow, shape, device);
    std::vector<bfloat16> rounded;
    for (const float value : narrow) rounded.emplace_back(value);
    return Tensor::from<bfloat16>(rounded, shape, device);
  };
  const auto leaf = [&](const std::vector<double>& x, const Shape& shape, DType dtype) {
    if (x.empty()) return Variable();
    return Variable::leaf(tensor(x, shape, dtype), Tensor::zeros(shape, kAccumulation, device));
  };
  const Shape qk{d(in.batch), d(in.time), d(in.heads), d(in.dqk)};
  const Shape vh{d(in.batch), d(in.time), d(in.heads), d(in.dv)};
  const Shape gates{d(in.batch), d(in.time), d(in.heads)};
  const Shape c_shape{d(in.batch), d(in.heads), d(in.dqk), d(in.dv)};
  const Shape n_shape{d(in.batch), d(in.heads), d(in.dqk)};
  const Variable q = leaf(in.q, qk, dtype_of<T>);
  const Variable k = leaf(in.k, qk, dtype_of<T>);
  const Variable v = leaf(in.v, vh, dtype_of<T>);
  const Variable i = leaf(in.i, gates, kAccumulation);
  const Variable f = leaf(in.f, gates, kAccumulation);
  mlstm::State initial{
      leaf(in.c0, c_shape, kAccumulation), leaf(in.n0, n_shape, kAccumulation), {}};
  if (!in.m0.empty()) {
    initial.m = Variable(tensor(in.m0, {d(in.batch), d(in.heads)}, kAccumulation));
  }
  Tensor reset;
  if (!in.reset.empty()) {
    reset = Tensor::from<std::uint8_t>(in.reset, {d(in.batch), d(in.time)}, device);
  }
  const mlstm::CellOptions options{
      .form = form,
      .gate = in.sigmoid_input_gate ? mlstm::InputGate::kSigmoid : mlstm::InputGate::kExponential,
      .chunk_size = chunk,
      .eps = in.eps,
      .return_last_state = true};
  const mlstm::CellResult r = mlstm::cell(q, k, v, i, f, initial, reset, options);
  const auto gradient = [&](const std::vector<double>& x, const Shape& shape, DType dtype) {
    return x.empty() ? Tensor{} : tensor(x, shape, dtype);
  };
  backward({r.h, r.last.c, r.last.n},
           {gradient(up.dh, vh, dtype_of<T>), gradient(up.dc_last, c_shape, kAccumulation),
            gradient(up.dn_last, n_shape, kAccumulation)});
  const auto grad = [](const Variable& x) {
    return x.defined() ? to_doubles(x.grad()) : std::vector<double>{};
  };
  return {{"h", to_doubles(r.h.value())},
          {"c_last", to_doubles(r.last.c.value())},
          {"n_last", to_doubles(r.last.n.value())},
          {"m_last", to_doubles(r.last.m.value())},
          {"dq", grad(q)},
          {"dk", grad(k)},
          {"dv", grad(v)},
          {"di", grad(i)},
          {"df", grad(f)},
          {"dc0", grad(initial.c)},
          {"dn0", grad(initial.n)}};
}

inline void expect_close(const Named& got, const Named& want, double tolerance,
                         const std::string& what) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t x = 0; x < got.size(); ++x) {
    EXPECT_LE(relative_error(got[x].second, want[x].second), tolerance)
        << what << ": " << got[x].first;
  }
}

}  // namespace carousel::testing
