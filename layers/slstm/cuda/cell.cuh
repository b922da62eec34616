// One thread's part of the forward walks through time: one element of the state.
#pragma once

#include "layers/slstm/cuda/pointers.cuh"
#include "layers/slstm/cuda/resident.cuh"

namespace carousel::slstm {

/// One element on its way through time. Its inputs are read a step before their use, and called
/// into the L2 cache kPrefetch steps before.
template <class T>
class Cell {
 public:
  /// `first` is the element at step 0.
  __device__ Cell(const ForwardPointers<T>& p, const Element& first, bool active)
      : at_(first.later(p.n, -1)) {
    if (!active) return;
    state_ = p.initial_state(first);
#pragma unroll
    for (int g = 0; g < kNumGates; ++g) bias_[g] = p.bias(first, g);
    for (int steps = 0; steps < kPrefetch; ++steps) call_inputs(p, first.later(p.n, steps));
    read(p, first);
  }

  /// Goes one step on; returns its h. products[g · stride] is R·h of the step before.
  __device__ float advance(const ForwardPointers<T>& p, const float* products, int stride) {
    const bool starts = start_ != 0;
    float pre[kNumGates];
#pragma unroll
    for (int g = 0; g < kNumGates; ++g) {
      pre[g] = cuda::to_float(x_[g]) + bias_[g] + (starts ? 0.0f : products[g * stride]);
    }
    if (starts) state_ = {0.0f, 0.0f, -INFINITY};
    at_ = at_.later(p.n, 1);
    read(p, at_.later(p.n, 1));
    call_inputs(p, at_.later(p.n, kPrefetch));
    gate_ = step<DeviceMath>(pre[0], pre[1], pre[2], pre[3], state_);
    h_ = __fdividef(gate_.o * state_.c, state_.n);
    return h_;
  }
  /// Writes the results of the step that advance() made last.
  __device__ void save(const ForwardPointers<T>& p) const { p.save(at_, h_, gate_, state_); }

 private:
  // As stored: a conversion would wait for the value.
  __device__ void read(const ForwardPointers<T>& p, const Element& e) {
    if (e.t >= p.n.time) return;
#pragma unroll
    for (int g = 0; g < kNumGates; ++g) x_[g] = p.x[g][e.token];
    start_ = p.start(e);
  }
  __device__ void call_inputs(const ForwardPointers<T>& p, const Element& e) const {
    if (e.t >= p.n.time) return;
#pragma unroll
    for (int g = 0; g < kNumGates; ++g) prefetch(p.x[g] + e.token);
  }

  Element at_;
  ElementState<float> state_{0.0f, 0.0f, -INFINITY};
  ElementGates<float> gate_{};
  float bias_[kNumGates] = {};
  float h_ = 0.0f;
  T x_[kNumGates] = {};
  std::uint8_t start_ = 0;
};

}  // namespace carousel::slstm
