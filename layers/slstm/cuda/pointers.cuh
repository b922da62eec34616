// The cell's arguments as kernels see them, and where their elements lie.
#pragma once

#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "layers/slstm/kernels.h"
#include "layers/slstm/pointwise.h"

namespace carousel::slstm {

/// Steps between calling a step's inputs into the L2 cache and their use: time steps are shorter
/// than the way to device memory.
inline constexpr int kPrefetch = 8;

__device__ __forceinline__ void prefetch(const void* p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

struct Sizes {
  std::int64_t batch, time, heads, size;

  static Sizes of(const Tensor& h) { return {h.dim(0), h.dim(1), h.dim(2), h.dim(3)}; }

  /// Elements from one step to the next in (B, S, NH, D) and in (S, B, NH, D) tensors.
  __device__ std::int64_t token_stride() const { return heads * size; }
  __device__ std::int64_t step_stride() const { return batch * heads * size; }
};

/// One element (d of a head of a sequence) at one step.
struct Element {
  int sequence, head, t, d;
  std::int64_t token;  ///< its offset in (B, S, NH, D) tensors
  std::int64_t step;   ///< its offset in (S, B, NH, D) tensors
  std::int64_t state;  ///< its offset in (B, NH, D) tensors

  __device__ Element(const Sizes& n, std::int64_t of_sequence, std::int64_t of_head, int of_d,
                     std::int64_t at_step)
      : sequence(static_cast<int>(of_sequence)),
        head(static_cast<int>(of_head)),
        t(static_cast<int>(at_step)),
        d(of_d) {
    state = (of_sequence * n.heads + of_head) * n.size + d;
    token = ((of_sequence * n.time + at_step) * n.heads + of_head) * n.size + d;
    step = at_step * n.step_stride() + state;
  }
  /// Moves `steps` later, or earlier.
  __device__ void move(const Sizes& n, int steps) {
    t += steps;
    token += steps * n.token_stride();
    step += steps * n.step_stride();
  }
  /// The same element `steps` later, or earlier.
  __device__ Element later(const Sizes& n, int steps) const {
    Element e = *this;
    e.move(n, steps);
    return e;
  }
  /// Its offset in (S, B, NH, n, D) tensors, at 0 of n.
  __device__ std::int64_t step_of(int n) const { return n * step - (n - 1) * std::int64_t{d}; }
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

  /// Non-zero if a document starts at the element's step.
  __device__ std::uint8_t start(const Element& e) const {
    return reset == nullptr ? std::uint8_t{0} : reset[e.sequence * n.time + e.t];
  }
  __device__ ElementState<float> initial_state(const Element& e) const {
    if (h0 == nullptr) return {0.0f, 0.0f, -INFINITY};
    return {c0[e.state], n0[e.state], m0[e.state]};
  }
  __device__ float bias(const Element& e, int gate) const {
    return b[(gate * n.heads + e.head) * n.size + e.d];
  }
  /// Writes h and, if the backward will want them, the step's gates and state; after the last step
  /// the last state.
  __device__ void save(const Element& e, float value, const ElementGates<float>& gate,
                       const ElementState<float>& state) const {
    h[e.token] = cuda::from_float<T>(value);
    if (gates != nullptr) {
      float* to = gates + e.step_of(kNumGates);
      to[0] = gate.i;
      to[n.size] = gate.f;
      to[2 * n.size] = gate.z;
      to[3 * n.size] = gate.o;
      to = states + e.step_of(2);
      to[0] = state.c;
      to[n.size] = state.n;
      forget_slope[e.step] = gate.forget_slope;
    }
    if (e.t + 1 != n.time) return;
    if (h_last != nullptr) h_last[e.state] = value;
    if (c_last != nullptr) c_last[e.state] = state.c;
    if (n_last != nullptr) n_last[e.state] = state.n;
    if (m_last != nullptr) m_last[e.state] = state.m;
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

  __device__ std::uint8_t start(const Element& e) const {
    return reset == nullptr ? std::uint8_t{0} : reset[e.sequence * n.time + e.t];
  }
  /// c and n after the element's step.
  __device__ ElementState<float> state_after(const Element& e) const {
    const float* at = states + e.step_of(2);
    return {at[0], at[n.size], 0.0f};
  }
  /// c and n after the step before, as if no document started in between.
  __device__ ElementState<float> state_before(const Element& e) const {
    if (e.t > 0) return state_after(e.later(n, -1));
    if (c0 == nullptr) return {0.0f, 0.0f, 0.0f};
    return {c0[e.state], n0[e.state], 0.0f};
  }
  __device__ void write_dx(const Element& e, int gate, float gradient) const {
    if (dx[gate] != nullptr) dx[gate][e.token] = cuda::from_float<T>(gradient);
  }
};

/// What the backward of one element's step reads, as stored.
template <class T>
struct SavedStep {
  ElementGates<float> gate{};
  ElementState<float> before{};  ///< not to be used where a document starts
  T dh{};
  std::uint8_t start = 0;

  __device__ static SavedStep read(const BackwardPointers<T>& p, const Element& e) {
    SavedStep s;
    const float* gates = p.gates + e.step_of(kNumGates);
    s.gate = {gates[0], gates[p.n.size], gates[2 * p.n.size], gates[3 * p.n.size],
              p.forget_slope[e.step]};
    s.before = p.state_before(e);
    s.dh = p.dh[e.token];
    s.start = p.start(e);
    return s;
  }
  /// One step backwards (see step_backward in pointwise.h): dh, dc and dn are what came from the
  /// step after; dc and dn become those of the step before.
  __device__ ElementGradients<float> differentiate(const ElementState<float>& after,
                                                   float dh_recurrent, float& dc, float& dn) const {
    // Member by member: choosing between two structs would put them in memory.
    const ElementState<float> read{start != 0 ? 0.0f : before.c, start != 0 ? 0.0f : before.n,
                                   0.0f};
    return step_backward(gate, after, read, cuda::to_float(dh) + dh_recurrent, dc, dn);
  }
};

}  // namespace carousel::slstm
