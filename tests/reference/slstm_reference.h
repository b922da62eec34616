// An oracle for the sLSTM cell, independent of the kernels: the recurrence token by token without
// any stabiliser, c' = σ(f)·c + eⁱ·tanh(z) and n' = σ(f)·n + eⁱ (float64 holds them for gates of
// moderate size), and gradients by complex steps: f(x + ih) has the imaginary part h·f'(x), free of
// cancellation. Stabilised states are these times e^−m; the m of the cell's contract is computed
// from real parts and is thereby a constant.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace carousel::testing {

/// Flattened in the cell's layouts: x (i, f, z, o) each (B,S,NH,D), r (NH,4,D,D), b (4,NH,D),
/// states (B,NH,D), reset (B,S). reset and the states may be empty.
template <class N>
struct SlstmInputs {
  std::size_t batch = 1, time = 1, heads = 1, size = 1;
  std::array<std::vector<N>, 4> x;
  std::vector<N> r, b, h0, c0, n0;
  std::vector<double> m0;
  std::vector<std::uint8_t> reset;
};

/// Stabilised last states.
template <class N>
struct SlstmOutputs {
  std::vector<N> h, h_last, c_last, n_last;
  std::vector<double> m_last;
};

namespace slstm_reference {

inline double real(double x) { return x; }
inline double real(std::complex<double> x) { return x.real(); }

template <class N>
N sigmoid(N x) {
  return 1.0 / (1.0 + std::exp(-x));
}

}  // namespace slstm_reference

template <class N>
SlstmOutputs<N> slstm_forward(const SlstmInputs<N>& in) {
  using slstm_reference::real;
  using slstm_reference::sigmoid;
  SlstmOutputs<N> out;
  out.h.resize(in.x[0].size());
  for (std::size_t b = 0; b < in.batch; ++b) {
    for (std::size_t head = 0; head < in.heads; ++head) {
      std::vector<N> h(in.size, N(0.0)), c = h, n = h;
      std::vector<double> m(in.size, 0.0);
      if (!in.h0.empty()) {
        for (std::size_t d = 0; d < in.size; ++d) {
          const std::size_t at = (b * in.heads + head) * in.size + d;
          h[d] = in.h0[at];
          c[d] = in.c0[at] * std::exp(in.m0[at]);
          n[d] = in.n0[at] * std::exp(in.m0[at]);
          m[d] = in.m0[at];
        }
      }
      for (std::size_t t = 0; t < in.time; ++t) {
        if (!in.reset.empty() && in.reset[b * in.time + t] != 0) {
          for (std::size_t d = 0; d < in.size; ++d) h[d] = c[d] = n[d] = N(0.0);
        }
        const std::vector<N> h_before = h;
        for (std::size_t d = 0; d < in.size; ++d) {
          const std::size_t at = ((b * in.time + t) * in.heads + head) * in.size + d;
          N g[4];
          for (std::size_t gate = 0; gate < 4; ++gate) {
            g[gate] = in.x[gate][at] + in.b[(gate * in.heads + head) * in.size + d];
            for (std::size_t e = 0; e < in.size; ++e) {
              g[gate] += in.r[((head * 4 + gate) * in.size + d) * in.size + e] * h_before[e];
            }
          }
          const double carried = std::log(real(sigmoid(g[1]))) + m[d];
          m[d] = real(n[d]) == 0.0 ? real(g[0]) : std::max(real(g[0]), carried);
          c[d] = sigmoid(g[1]) * c[d] + std::exp(g[0]) * std::tanh(g[2]);
          n[d] = sigmoid(g[1]) * n[d] + std::exp(g[0]);
          h[d] = sigmoid(g[3]) * c[d] / n[d];
          out.h[at] = h[d];
        }
      }
      for (std::size_t d = 0; d < in.size; ++d) {
        out.h_last.push_back(h[d]);
        out.c_last.push_back(c[d] * std::exp(-m[d]));
        out.n_last.push_back(n[d] * std::exp(-m[d]));
        out.m_last.push_back(m[d]);
      }
    }
  }
  return out;
}

/// Gradients of Σ h·dh + Σ h_last·dh_last + Σ c_last·dc_last + Σ n_last·dn_last (the last three may
/// be empty).
struct SlstmGradients {
  std::array<std::vector<double>, 4> x;
  std::vector<double> r, b, h0, c0, n0;
};

inline SlstmGradients slstm_gradients(const SlstmInputs<double>& in, const std::vector<double>& dh,
                                      const std::vector<double>& dh_last = {},
                                      const std::vector<double>& dc_last = {},
                                      const std::vector<double>& dn_last = {}) {
  using Complex = std::complex<double>;
  constexpr double kStep = 1e-30;
  const auto lift = [](const std::vector<double>& x) {
    return std::vector<Complex>(x.begin(), x.end());
  };
  SlstmInputs<Complex> z{in.batch,
                         in.time,
                         in.heads,
                         in.size,
                         {lift(in.x[0]), lift(in.x[1]), lift(in.x[2]), lift(in.x[3])},
                         lift(in.r),
                         lift(in.b),
                         lift(in.h0),
                         lift(in.c0),
                         lift(in.n0),
                         in.m0,
                         in.reset};
  const auto loss = [&] {
    const SlstmOutputs<Complex> out = slstm_forward(z);
    double sum = 0.0;
    for (std::size_t e = 0; e < dh.size(); ++e) sum += out.h[e].imag() * dh[e];
    for (std::size_t e = 0; e < dh_last.size(); ++e) sum += out.h_last[e].imag() * dh_last[e];
    for (std::size_t e = 0; e < dc_last.size(); ++e) sum += out.c_last[e].imag() * dc_last[e];
    for (std::size_t e = 0; e < dn_last.size(); ++e) sum += out.n_last[e].imag() * dn_last[e];
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
  return {{gradient(z.x[0]), gradient(z.x[1]), gradient(z.x[2]), gradient(z.x[3])},
          gradient(z.r),
          gradient(z.b),
          gradient(z.h0),
          gradient(z.c0),
          gradient(z.n0)};
}

}  // namespace carousel::testing
