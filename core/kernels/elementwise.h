// Elementwise kernels on whole tensors of one shape. Overwrite their output unless said otherwise;
// `out` may alias an input.
#pragma once

#include "core/base/philox.h"
#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel {

/// out = a + b; equal shapes and dtypes.
struct AddArgs {
  Tensor a, b, out;
};
inline constinit KernelSlot<AddArgs> add_fwd{"add_fwd"};

/// out = x converted to out's dtype (any pair of f32, bf16, f64), rounded to nearest even.
struct CastArgs {
  Tensor x, out;
};
inline constinit KernelSlot<CastArgs> cast{"cast"};

/// out += x, converted to out's dtype: accumulation into float32 gradient buffers.
struct AccumulateArgs {
  Tensor x, out;
};
inline constinit KernelSlot<AccumulateArgs> accumulate{"accumulate"};

/// out = alpha·x.
struct ScaleArgs {
  Tensor x, out;
  double alpha = 1.0;
};
inline constinit KernelSlot<ScaleArgs> scale{"scale"};

/// out = value.
struct FillArgs {
  Tensor out;
  double value = 0.0;
};
inline constinit KernelSlot<FillArgs> fill{"fill"};

/// out = Σ x, summed in float64 in a fixed order: x (N), out () f32 or f64 alike.
struct SumArgs {
  Tensor x, out;
};
inline constinit KernelSlot<SumArgs> sum_fwd{"sum_fwd"};

/// out[i] = x[0] for every i; x () and out of one dtype.
struct BroadcastArgs {
  Tensor x, out;
};
inline constinit KernelSlot<BroadcastArgs> broadcast{"broadcast"};

/// Inverted dropout: out = x·1[u ≥ p]/(1−p) with u = philox_uniform(key, element). The backward is
/// the same call on the gradient.
struct DropoutArgs {
  Tensor x, out;
  double p = 0.0;
  RandomKey key;
};
inline constinit KernelSlot<DropoutArgs> dropout{"dropout"};

}  // namespace carousel
