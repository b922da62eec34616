// The quadratic form in the plainest mixed precision: sums exact, every operand of a matrix product
// and every output rounded to bf16 once, gate gradients from the rounded outputs. What a bf16
// kernel errs is measured against what this errs.
#pragma once

#include <cmath>
#include <vector>

#include "core/tensor/dtype.h"
#include "tests/layers/mlstm/cell_case.h"

namespace carousel::testing {

inline double rounded(double x) {
  return static_cast<double>(static_cast<float>(bfloat16(static_cast<float>(x))));
}
inline void round_all(std::vector<double>& v) {
  for (double& x : v) x = rounded(x);
}
/// The inputs as a bf16 cell receives them: gates are float32 there, and extreme ones that cancel
/// magnify their rounding.
inline void round_inputs(MlstmInputs<double>& in, Upstream& up) {
  round_all(in.q);
  round_all(in.k);
  round_all(in.v);
  round_all(up.dh);
  for (auto* x : {&in.i, &in.f}) {
    for (double& e : *x) e = static_cast<float>(e);
  }
}

namespace plain_detail {

// One head without an initial state.
struct Head {
  const MlstmInputs<double>& in;
  const Upstream& up;
  std::size_t batch, head;
  MlstmGradients& g;
  std::vector<double>& h;

  std::size_t at(std::size_t t) const { return (batch * in.time + t) * in.heads + head; }
  static double dot(const double* a, const double* b, std::size_t n) {
    double sum = 0.0;
    for (std::size_t x = 0; x < n; ++x) sum += a[x] * b[x];
    return sum;
  }

  void run() {
    const std::size_t n = in.time;
    const double scale = 1.0 / std::sqrt(static_cast<double>(in.dqk));
    std::vector<double> log_forget(n), log_input(n), m(n);
    std::vector<std::size_t> first(n);
    for (std::size_t t = 0; t < n; ++t) {
      const bool reset = !in.reset.empty() && in.reset[batch * n + t] != 0;
      const double before = t == 0 || reset ? 0.0 : m[t - 1];
      const double f = mlstm_reference::log_sigmoid(in.f[at(t)]);
      const double i =
          in.sigmoid_input_gate ? mlstm_reference::log_sigmoid(in.i[at(t)]) : in.i[at(t)];
      m[t] = in.sigmoid_input_gate ? 0.0 : std::max(f + before, i);
      log_forget[t] = f + before - m[t];
      log_input[t] = i - m[t];
      first[t] = t == 0 || reset ? t : first[t - 1];
    }
    std::vector<double> dq(n * in.dqk), dk(n * in.dqk), dv(n * in.dv);
    for (std::size_t i = 0; i < n; ++i) {
      std::vector<double> weights(n), scores(n), numerator(in.dv), normalised(in.dv);
      double decay = 0.0, denominator = 0.0;
      for (std::size_t j = i + 1; j-- > first[i];) {
        weights[j] = std::exp(decay + log_input[j]);
        decay += log_forget[j];
        const double score =
            scale * dot(&in.q[at(i) * in.dqk], &in.k[at(j) * in.dqk], in.dqk) * weights[j];
        denominator += score;
        scores[j] = rounded(score);
        for (std::size_t y = 0; y < in.dv; ++y) numerator[y] += scores[j] * in.v[at(j) * in.dv + y];
      }
      const double bound = std::exp(-m[i]);
      const double normaliser = std::max(std::abs(denominator), bound) + in.eps;
      double delta = 0.0;
      for (std::size_t y = 0; y < in.dv; ++y) {
        const std::size_t e = at(i) * in.dv + y;
        h[e] = rounded(numerator[y] / normaliser);
        delta -= up.dh[e] * h[e] / normaliser;
        normalised[y] = rounded(up.dh[e] / normaliser);
      }
      delta *= std::abs(denominator) > bound ? std::copysign(1.0, denominator) : 0.0;
      for (std::size_t j = first[i]; j <= i; ++j) {
        const double dp = dot(normalised.data(), &in.v[at(j) * in.dv], in.dv);
        const double ds = rounded(scale * (dp + delta) * weights[j]);
        for (std::size_t x = 0; x < in.dqk; ++x) {
          dq[i * in.dqk + x] += ds * in.k[at(j) * in.dqk + x];
          dk[j * in.dqk + x] += ds * in.q[at(i) * in.dqk + x];
        }
        for (std::size_t y = 0; y < in.dv; ++y) dv[j * in.dv + y] += scores[j] * normalised[y];
      }
    }
    double sum = 0.0;
    for (std::size_t t = n; t-- > 0;) {
      double q_dq = 0.0, k_dk = 0.0;
      for (std::size_t x = 0; x < in.dqk; ++x) {
        const std::size_t e = at(t) * in.dqk + x;
        g.q[e] = rounded(dq[t * in.dqk + x]);
        g.k[e] = rounded(dk[t * in.dqk + x]);
        q_dq += in.q[e] * g.q[e];
        k_dk += in.k[e] * g.k[e];
      }
      for (std::size_t y = 0; y < in.dv; ++y) g.v[at(t) * in.dv + y] = rounded(dv[t * in.dv + y]);
      sum += q_dq - k_dk;
      g.i[at(t)] = k_dk * (in.sigmoid_input_gate ? 1.0 / (1.0 + std::exp(in.i[at(t)])) : 1.0);
      g.f[at(t)] = first[t] == t ? 0.0 : sum / (1.0 + std::exp(in.f[at(t)]));
      if (first[t] == t) sum = 0.0;
    }
  }
};

}  // namespace plain_detail

/// h, dq, dk, dv, di, df of a case without an initial state and without gradients at the last one.
inline Named plain_bf16(const MlstmInputs<double>& in, const Upstream& up) {
  MlstmGradients g;
  g.q.resize(in.q.size());
  g.k.resize(in.k.size());
  g.v.resize(in.v.size());
  g.i.resize(in.i.size());
  g.f.resize(in.f.size());
  std::vector<double> h(in.v.size());
  for (std::size_t b = 0; b < in.batch; ++b) {
    for (std::size_t head = 0; head < in.heads; ++head) {
      plain_detail::Head{in, up, b, head, g, h}.run();
    }
  }
  return {{"h", h}, {"dq", g.q}, {"dk", g.k}, {"dv", g.v}, {"di", g.i}, {"df", g.f}};
}

}  // namespace carousel::testing
