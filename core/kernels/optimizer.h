// The optimizer's kernels, on flat arenas.
#pragma once

#include <span>

#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel {

/// out = Σ x², in float64: x (N) f32 or f64; out () f64. Deterministic for a given number of
/// threads; infinite or NaN if x is.
struct SumOfSquaresArgs {
  Tensor x, out;
};
inline constinit KernelSlot<SumOfSquaresArgs> sum_of_squares{"sum_of_squares"};

/// Elements [begin, end) of the arenas and their weight decay. Segments are sorted, disjoint, and
/// start at multiples of 64 elements; elements in none are padding and stay as they are.
struct AdamWSegment {
  std::int64_t begin = 0, end = 0;
  double weight_decay = 0.0;
};

/// One step of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, decay decoupled and scaled by
/// lr as in PyTorch), all in float32 (float64 for f64 arenas):
///   g = c·grad, c = min(1, clip/(norm + 1e-6)), norm = √grad_norm2     (clip = 0: c = 1)
///   w −= lr·decay·w;  m = β1·m + (1−β1)·g;  v = β2·v + (1−β2)·g²
///   w −= lr/(1−β1^t) · m / (√v/√(1−β2^t) + eps)
/// If norm is not finite, nothing is written: the caller still has the weights of the last good
/// step. master, m and v (N) f32 are updated in place; compute (N) bf16, if given, gets the rounded
/// masters. grad is read only.
struct AdamWArgs {
  Tensor master, grad, m, v, compute;
  std::span<const AdamWSegment> segments;  ///< host memory, read before the call returns
  Tensor grad_norm2;                       ///< () f64: Σ grad²
  double clip = 0.0;
  double lr = 0.0, beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  std::int64_t step = 1;  ///< t, counted from 1
};
inline constinit KernelSlot<AdamWArgs> adamw{"adamw"};

}  // namespace carousel
