// The cell's arguments as kernels see them, and where their elements lie.
#pragma once

#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "layers/slstm/kernels.h"
#include "layers/slstm/pointwise.h"

namespace carousel::slstm {

struct Sizes {
  std::int64_t batch, time, heads, size;

  static Sizes of(const Tensor& h) { return {h.dim(0), h.dim(1), h.dim(2), h.dim(3)}; }

  /// Of (b, t, head, d) in a (B, S, NH, D) tensor, of (b, head, d) in a (B, NH, D) one, and of
  /// (t, b, head, d) in a (S, B, NH, n, D) one.
  __device__ std::int64_t token(std::int64_t b, std::int64_t t, std::int64_t head, int d) const {
    return ((b * time + t) * heads + head) * size + d;
  }
  __device__ std::int64_t state(std::int64_t b, std::int64_t head, int d) const {
    return (b * heads + head) * size + d;
  }
  __device__ std::int64_t step(std::int64_t b, std::int64_t t, std::int64_t head, int d,
                               int n = 1) const {
    return ((t * batch + b) * heads + head) * n * size + d;
  }
};

template <class T>
struct ForwardPointers {
  Sizes n;
  const T* x[kNumGates];
  const float *r, *b, *h0, *c0, *n0, *m0;
  const std::uint8_t* reset;
  T* h;
  float *h_last, *c_last, *n_last, *m_last, *gates, *states, *forget_slope;

  explicit ForwardPointers(const CellForwardArgs& args) : n(Sizes::of(args.h)) {
    for (int g = 0; g < kNumGates; ++g) x[g] = cuda::data<T>(args.in.x[g]);
    r = args.in.r.data<float>();
    b = args.in.b.data<float>();
    h0 = args.in.h0.data_or_null<float>();
    c0 = args.in.c0.data_or_null<float>();
    n0 = args.in.n0.data_or_null<float>();
    m0 = args.in.m0.data_or_null<float>();
    reset = args.in.reset.data_or_null<std::uint8_t>();
    h = cuda::data<T>(args.h);
    h_last = args.h_last.data_or_null<float>();
    c_last = args.c_last.data_or_null<float>();
    n_last = args.n_last.data_or_null<float>();
    m_last = args.m_last.data_or_null<float>();
    gates = args.gates.data_or_null<float>();
    states = args.states.data_or_null<float>();
    forget_slope = args.forget_slope.data_or_null<float>();
  }

  /// True if a document starts at token t.
  __device__ bool starts(std::int64_t sequence, std::int64_t t) const {
    return reset != nullptr && reset[sequence * n.time + t] != 0;
  }
  __device__ ElementState<float> initial_state(std::int64_t sequence, std::int64_t head,
                                               int d) const {
    if (h0 == nullptr) return {0.0f, 0.0f, -INFINITY};
    const std::int64_t at = n.state(sequence, head, d);
    return {c0[at], n0[at], m0[at]};
  }
  /// Writes h and, if the backward will want them, the step's gates and state.
  __device__ void save(std::int64_t sequence, std::int64_t t, std::int64_t head, int d, float value,
                       const ElementGates<float>& gate, const ElementState<float>& state) const {
    h[n.token(sequence, t, head, d)] = cuda::from_float<T>(value);
    if (gates == nullptr) return;
    float* to = gates + n.step(sequence, t, head, d, kNumGates);
    to[0] = gate.i;
    to[n.size] = gate.f;
    to[2 * n.size] = gate.z;
    to[3 * n.size] = gate.o;
    to = states + n.step(sequence, t, head, d, 2);
    to[0] = state.c;
    to[n.size] = state.n;
    forget_slope[n.step(sequence, t, head, d)] = gate.forget_slope;
  }
  __device__ void save_last(std::int64_t sequence, std::int64_t head, int d, float value,
                            const ElementState<float>& state) const {
    const std::int64_t at = n.state(sequence, head, d);
    if (h_last != nullptr) h_last[at] = value;
    if (c_last != nullptr) c_last[at] = state.c;
    if (n_last != nullptr) n_last[at] = state.n;
    if (m_last != nullptr) m_last[at] = state.m;
  }
};

template <class T>
struct BackwardPointers {
  Sizes n;
  const float *r, *c0, *n0, *gates, *states, *forget_slope, *dh_last, *dc_last, *dn_last;
  const T* dh;
  const std::uint8_t* reset;
  T* dx[kNumGates];
  float *dh0, *dc0, *dn0;

  explicit BackwardPointers(const CellBackwardArgs& args) : n(Sizes::of(args.dh)) {
    r = args.in.r.data<float>();
    c0 = args.in.c0.data_or_null<float>();
    n0 = args.in.n0.data_or_null<float>();
    gates = args.gates.data<float>();
    states = args.states.data<float>();
    forget_slope = args.forget_slope.data<float>();
    dh_last = args.dh_last.data_or_null<float>();
    dc_last = args.dc_last.data_or_null<float>();
    dn_last = args.dn_last.data_or_null<float>();
    dh = cuda::data<T>(args.dh);
    reset = args.in.reset.data_or_null<std::uint8_t>();
    for (int g = 0; g < kNumGates; ++g) dx[g] = cuda::data_or_null<T>(args.dx[g]);
    dh0 = args.dh0.data_or_null<float>();
    dc0 = args.dc0.data_or_null<float>();
    dn0 = args.dn0.data_or_null<float>();
  }

  __device__ bool starts(std::int64_t sequence, std::int64_t t) const {
    return reset != nullptr && reset[sequence * n.time + t] != 0;
  }
};

/// What the backward of one element's step reads.
struct SavedStep {
  ElementGates<float> gate{};
  ElementState<float> before{};
  float dh = 0.0f;
  bool starts = false;

  template <class T>
  __device__ static SavedStep read(const BackwardPointers<T>& p, std::int64_t sequence,
                                   std::int64_t t, std::int64_t head, int d) {
    SavedStep s;
    const float* gates = p.gates + p.n.step(sequence, t, head, d, kNumGates);
    s.gate = {gates[0], gates[p.n.size], gates[2 * p.n.size], gates[3 * p.n.size],
              p.forget_slope[p.n.step(sequence, t, head, d)]};
    s.starts = p.starts(sequence, t);
    s.before = state_before(p, sequence, t, head, d, s.starts);
    s.dh = cuda::to_float(p.dh[p.n.token(sequence, t, head, d)]);
    return s;
  }

  /// c and n after step t, which is before step t + 1.
  template <class T>
  __device__ static ElementState<float> state_after(const BackwardPointers<T>& p,
                                                    std::int64_t sequence, std::int64_t t,
                                                    std::int64_t head, int d) {
    const float* states = p.states + p.n.step(sequence, t, head, d, 2);
    return {states[0], states[p.n.size], 0.0f};
  }

 private:
  template <class T>
  __device__ static ElementState<float> state_before(const BackwardPointers<T>& p,
                                                     std::int64_t sequence, std::int64_t t,
                                                     std::int64_t head, int d, bool starts) {
    if (starts) return {0.0f, 0.0f, 0.0f};
    if (t > 0) return state_after(p, sequence, t - 1, head, d);
    if (p.c0 == nullptr) return {0.0f, 0.0f, 0.0f};
    const std::int64_t at = p.n.state(sequence, head, d);
    return {p.c0[at], p.n0[at], 0.0f};
  }
};

}  // namespace carousel::slstm
