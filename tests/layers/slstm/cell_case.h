// One description of an sLSTM cell case buys the inputs, the run through the differentiable op and
// the oracle's answer, all as named lists of doubles.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "layers/slstm/cell.h"
#include "tests/reference/slstm_reference.h"
#include "tests/support/random.h"

namespace carousel::testing {

struct SlstmCase {
  std::int64_t batch = 2, time = 5, heads = 2, size = 3;
  bool initial = false;
  std::vector<std::int64_t> resets;  ///< of batch 0; batch b resets b tokens later
  double r_std = 0.4;
};

inline SlstmInputs<double> make_slstm_inputs(const SlstmCase& c, std::uint64_t seed) {
  const auto normals = [](std::int64_t n, std::uint64_t s, double std, double mean = 0.0) {
    return random_normal<double>({n}, s, std, mean).to_vector<double>();
  };
  const std::int64_t states = c.batch * c.heads * c.size;
  SlstmInputs<double> in;
  in.batch = static_cast<std::size_t>(c.batch);
  in.time = static_cast<std::size_t>(c.time);
  in.heads = static_cast<std::size_t>(c.heads);
  in.size = static_cast<std::size_t>(c.size);
  for (std::size_t g = 0; g < 4; ++g) in.x[g] = normals(states * c.time, seed + g, 1.5);
  in.r = normals(c.heads * 4 * c.size * c.size, seed + 4, c.r_std);
  in.b = normals(4 * c.heads * c.size, seed + 5, 1.0, 0.5);
  if (c.initial) {
    in.h0 = normals(states, seed + 6, 0.5);
    in.c0 = normals(states, seed + 7, 1.0);
    in.n0 = normals(states, seed + 8, 0.1, 1.0);
    in.m0 = normals(states, seed + 9, 1.0);
  }
  if (!c.resets.empty()) {
    in.reset.assign(in.batch * in.time, 0);
    for (std::int64_t b = 0; b < c.batch; ++b) {
      for (const std::int64_t t : c.resets) {
        if (t + b < c.time) in.reset[static_cast<std::size_t>(b * c.time + t + b)] = 1;
      }
    }
  }
  return in;
}

/// Gradients that arrive at h and the last states; the latter are empty unless wanted.
struct SlstmUpstream {
  std::vector<double> dh, dh_last, dc_last, dn_last;
};

inline SlstmUpstream make_slstm_upstream(const SlstmCase& c, bool at_last, std::uint64_t seed) {
  const auto normals = [](std::int64_t n, std::uint64_t s) {
    return random_normal<double>({n}, s).to_vector<double>();
  };
  const std::int64_t states = c.batch * c.heads * c.size;
  SlstmUpstream up;
  up.dh = normals(states * c.time, seed);
  if (at_last) {
    up.dh_last = normals(states, seed + 1);
    up.dc_last = normals(states, seed + 2);
    up.dn_last = normals(states, seed + 3);
  }
  return up;
}

using NamedValues = std::vector<std::pair<std::string, std::vector<double>>>;

inline NamedValues slstm_oracle(const SlstmInputs<double>& in, const SlstmUpstream& up) {
  const SlstmOutputs<double> out = slstm_forward(in);
  const SlstmGradients g = slstm_gradients(in, up.dh, up.dh_last, up.dc_last, up.dn_last);
  return {{"h", out.h},
          {"h_last", out.h_last},
          {"c_last", out.c_last},
          {"n_last", out.n_last},
          {"m_last", out.m_last},
          {"di", g.x[0]},
          {"df", g.x[1]},
          {"dz", g.x[2]},
          {"do", g.x[3]},
          {"dr", g.r},
          {"db", g.b},
          {"dh0", g.h0},
          {"dc0", g.c0},
          {"dn0", g.n0}};
}

/// Values rounded to `dtype` on `device`.
inline Tensor tensor_of(const std::vector<double>& x, const Shape& shape, DType dtype,
                        Device device) {
  if (dtype == DType::kF64) return Tensor::from<double>(x, shape, device);
  const std::vector<float> narrow(x.begin(), x.end());
  if (dtype == DType::kF32) return Tensor::from<float>(narrow, shape, device);
  std::vector<bfloat16> rounded;
  for (const float value : narrow) rounded.emplace_back(value);
  return Tensor::from<bfloat16>(rounded, shape, device);
}

/// The op and its backward with x and h in T.
template <class T>
NamedValues run_slstm(const SlstmInputs<double>& in, const SlstmUpstream& up,
                      Device device = kCpu) {
  const auto d = [](std::size_t n) { return static_cast<std::int64_t>(n); };
  constexpr DType kAccumulation = accumulation_dtype(dtype_of<T>);
  const auto leaf = [&](const std::vector<double>& x, const Shape& shape, DType dtype) {
    if (x.empty()) return Variable();
    return Variable::leaf(tensor_of(x, shape, dtype, device),
                          Tensor::zeros(shape, kAccumulation, device));
  };
  const Shape token{d(in.batch), d(in.time), d(in.heads), d(in.size)};
  const Shape state{d(in.batch), d(in.heads), d(in.size)};
  Variable x[4];
  for (std::size_t g = 0; g < 4; ++g) x[g] = leaf(in.x[g], token, dtype_of<T>);
  const Variable r = leaf(in.r, {d(in.heads), 4, d(in.size), d(in.size)}, kAccumulation);
  const Variable b = leaf(in.b, {4, d(in.heads), d(in.size)}, kAccumulation);
  slstm::State initial{leaf(in.h0, state, kAccumulation),
                       leaf(in.c0, state, kAccumulation),
                       leaf(in.n0, state, kAccumulation),
                       {}};
  if (!in.m0.empty()) initial.m = Variable(tensor_of(in.m0, state, kAccumulation, device));
  Tensor reset;
  if (!in.reset.empty()) {
    reset = Tensor::from<std::uint8_t>(in.reset, {d(in.batch), d(in.time)}, device);
  }
  const slstm::CellResult out = slstm::cell(x[0], x[1], x[2], x[3], r, b, initial, reset, true);
  const auto gradient = [&](const std::vector<double>& g, const Shape& shape, DType dtype) {
    return g.empty() ? Tensor{} : tensor_of(g, shape, dtype, device);
  };
  backward(
      {out.h, out.last.h, out.last.c, out.last.n},
      {gradient(up.dh, token, dtype_of<T>), gradient(up.dh_last, state, kAccumulation),
       gradient(up.dc_last, state, kAccumulation), gradient(up.dn_last, state, kAccumulation)});
  const auto grad = [](const Variable& v) {
    return v.defined() ? to_doubles(v.grad()) : std::vector<double>{};
  };
  return {{"h", to_doubles(out.h.value())},
          {"h_last", to_doubles(out.last.h.value())},
          {"c_last", to_doubles(out.last.c.value())},
          {"n_last", to_doubles(out.last.n.value())},
          {"m_last", to_doubles(out.last.m.value())},
          {"di", grad(x[0])},
          {"df", grad(x[1])},
          {"dz", grad(x[2])},
          {"do", grad(x[3])},
          {"dr", grad(r)},
          {"db", grad(b)},
          {"dh0", grad(initial.h)},
          {"dc0", grad(initial.c)},
          {"dn0", grad(initial.n)}};
}

inline void expect_all_close(const NamedValues& got, const NamedValues& want, double tolerance,
                             const std::string& what) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t e = 0; e < got.size(); ++e) {
    EXPECT_LE(relative_error(got[e].second, want[e].second), tolerance)
        << what << ": " << got[e].first;
  }
}

}  // namespace carousel::testing
