// An oracle for the mLSTM cell, independent of the kernels: the recurrence written down token by
// token, and its gradients by complex steps. f(x + ih) has the imaginary part h·f'(x), free of
// cancellation, so the gradients are as exact as the function; the stabiliser is computed from real
// parts and is thereby the constant that the cell's contract makes it.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace carousel::testing {

/// Flattened in the cell's layouts: q, k (B,S,NH,DQK), v (B,S,NH,DV), i, f (B,S,NH), reset (B,S),
/// c0 (B,NH,DQK,DV), n0 (B,NH,DQK), m0 (B,NH). reset, c0, n0 and m0 may be empty.
template <class N>
struct MlstmInputs {
  std::size_t batch = 1, time = 1, heads = 1, dqk = 1, dv = 1;
  bool sigmoid_input_gate = false;
  double eps = 0.0;
  std::vector<N> q, k, v, i, f, c0, n0;
  std::vector<double> m0;
  std::vector<std::uint8_t> reset;
};

template <class N>
struct MlstmOutputs {
  std::vector<N> h, c_last, n_last;
  std::vector<double> m_last;
};

namespace mlstm_reference {

inline double real(double x) { return x; }
inline double real(std::complex<double> x) { return x.real(); }

template <class N>
N log_sigmoid(N x) {
  return real(x) > 0.0 ? -std::log(1.0 + std::exp(-x)) : x - std::log(1.0 + std::exp(x));
}

}  // namespace mlstm_reference

template <class N>
MlstmOutputs<N> mlstm_forward(const MlstmInputs<N>& in) {
  using mlstm_reference::log_sigmoid;
  using mlstm_reference::real;
  MlstmOutputs<N> out;
  out.h.resize(in.v.size());
  const double scale = 1.0 / std::sqrt(static_cast<double>(in.dqk));
  for (std::size_t b = 0; b < in.batch; ++b) {
    for (std::size_t head = 0; head < in.heads; ++head) {
      const std::size_t unit = b * in.heads + head;
      std::vector<N> c(in.dqk * in.dv, N(0.0));
      std::vector<N> n(in.dqk, N(0.0));
      double m = 0.0;
      if (!in.c0.empty()) {
        for (std::size_t x = 0; x < c.size(); ++x) c[x] = in.c0[unit * c.size() + x];
        for (std::size_t x = 0; x < n.size(); ++x) n[x] = in.n0[unit * n.size() + x];
        m = in.sigmoid_input_gate ? 0.0 : in.m0[unit];
      }
      for (std::size_t t = 0; t < in.time; ++t) {
        const std::size_t at = (b * in.time + t) * in.heads + head;
        if (!in.reset.empty() && in.reset[b * in.time + t] != 0) {
          std::fill(c.begin(), c.end(), N(0.0));
          std::fill(n.begin(), n.end(), N(0.0));
          m = 0.0;
        }
        const N log_forget = log_sigmoid(in.f[at]);
        const N log_input = in.sigmoid_input_gate ? log_sigmoid(in.i[at]) : in.i[at];
        const double m_new =
            in.sigmoid_input_gate ? 0.0 : std::max(real(log_forget) + m, real(log_input));
        const N forget = std::exp(log_forget + m - m_new);
        const N input = std::exp(log_input - m_new);
        m = m_new;
        N denominator(0.0);
        for (std::size_t x = 0; x < in.dqk; ++x) {
          const N k = in.k[at * in.dqk + x];
          for (std::size_t y = 0; y < in.dv; ++y) {
            c[x * in.dv + y] = forget * c[x * in.dv + y] + input * k * in.v[at * in.dv + y];
          }
          n[x] = forget * n[x] + input * k;
          denominator += scale * in.q[at * in.dqk + x] * n[x];
        }
        const N magnitude = real(denominator) < 0.0 ? -denominator : denominator;
        const double bound = std::exp(-m);
        const N normaliser = (real(magnitude) > bound ? magnitude : N(bound)) + in.eps;
        for (std::size_t y = 0; y < in.dv; ++y) {
          N numerator(0.0);
          for (std::size_t x = 0; x < in.dqk; ++x) {
            numerator += scale * in.q[at * in.dqk + x] * c[x * in.dv + y];
          }
          out.h[at * in.dv + y] = numerator / normaliser;
        }
      }
      out.c_last.insert(out.c_last.end(), c.begin(), c.end());
      out.n_last.insert(out.n_last.end(), n.begin(), n.end());
      out.m_last.push_back(m);
    }
  }
  return out;
}

/// Gradients of Σ h·dh + Σ c_last·dc_last + Σ n_last·dn_last (the last two may be empty).
struct MlstmGradients {
  std::vector<double> q, k, v, i, f, c0, n0;
};

inline MlstmGradients mlstm_gradients(const MlstmInputs<double>& in, const std::vector<double>& dh,
                                      const std::vector<double>& dc_last = {},
                                      const std::vector<double>& dn_last = {}) {
  using Complex = std::complex<double>;
  constexpr double kStep = 1e-30;
  const auto lift = [](const std::vector<double>& x) {
    return std::vector<Complex>(x.begin(), x.end());
  };
  MlstmInputs<Complex> z{
      in.batch,    in.time,     in.heads,   in.dqk,     in.dv,      in.sigmoid_input_gate,
      in.eps,      lift(in.q),  lift(in.k), lift(in.v), lift(in.i), lift(in.f),
      lift(in.c0), lift(in.n0), in.m0,      in.reset};
  const auto loss = [&] {
    const MlstmOutputs<Complex> out = mlstm_forward(z);
    double sum = 0.0;
    for (std::size_t x = 0; x < dh.size(); ++x) sum += out.h[x].imag() * dh[x];
    for (std::size_t x = 0; x < dc_last.size(); ++x) sum += out.c_last[x].imag() * dc_last[x];
    for (std::size_t x = 0; x < dn_last.size(); ++x) sum += out.n_last[x].imag() * dn_last[x];
    return sum / kStep;
  };
  const auto gradient = [&](std::vector<Complex>& x) {
    std::vector<double> g;
    for (Complex& element : x) {
      element.imag(kStep);
      g.push_back(loss());
      element.imag(0.0);
    }
    return g;
  };
  return {gradient(z.q), gradient(z.k),  gradient(z.v), gradient(z.i),
          gradient(z.f), gradient(z.c0), gradient(z.n0)};
}

}  // namespace carousel::testing
