// What the backward walks through time read, copied ahead of its use.
#pragma once

#include "layers/slstm/cuda/plan.h"
#include "layers/slstm/cuda/pointers.cuh"

namespace carousel::slstm {

__device__ __forceinline__ void copy_async(float* shared, const float* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(shared))),
               "l"(global));
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;"); }
/// Waits for all but the last n committed groups of this thread's copies.
template <int n>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
}

/// What the forward saved of one element, on its way from device memory: a ring of kStepsAhead
/// steps in shared memory, which costs no registers. Only the element's own thread reads it.
template <class T>
class SavedRing {
 public:
  __device__ SavedRing(float* ring, int element, int elements)
      : ring_(ring + element), elements_(elements) {}

  /// Starts the copies of the element's step.
  __device__ void fetch(const BackwardPointers<T>& p, const Element& e) const {
    float* to = slot(e.t);
    const float* gates = p.gates + e.step_of(kNumGates);
#pragma unroll
    for (int g = 0; g < kNumGates; ++g) copy_async(to + g * elements_, gates + g * p.n.size);
    copy_async(to + 4 * elements_, p.forget_slope + e.step);
    if (e.t > 0) {
      const float* before = p.states + e.later(p.n, -1).step_of(2);
      copy_async(to + 5 * elements_, before);
      copy_async(to + 6 * elements_, before + p.n.size);
    } else {
      const ElementState<float> initial = p.state_before(e);
      to[5 * elements_] = initial.c;
      to[6 * elements_] = initial.n;
    }
  }
  /// The step, once its copies have arrived; dh and the start flag are the caller's to read.
  __device__ SavedStep<T> get(int t) const {
    const float* from = slot(t);
    SavedStep<T> s;
    s.gate = {from[0], from[elements_], from[2 * elements_], from[3 * elements_],
              from[4 * elements_]};
    s.before = {from[5 * elements_], from[6 * elements_], 0.0f};
    return s;
  }

 private:
  __device__ float* slot(int t) const { return ring_ + t % kStepsAhead * kSavedFloats * elements_; }
  float* ring_;
  int elements_;
};

}  // namespace carousel::slstm
