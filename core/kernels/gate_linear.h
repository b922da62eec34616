// The products that make a cell's two gates: linears of few outputs on one input, with weights and
// results in the accumulation dtype A of T. What multiplies is x as it is stored: no wide copy of
// it is made or saved.
//   out[g] = x·weight[g]ᵀ + bias[g], g = 0, 1
// x may come in pieces of columns, one call each: K of the weights' C columns, from `column` on.
#pragma once

#include <array>
#include <cstdint>

#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel {

inline constexpr int kGates = 2;
using GateTensors = std::array<Tensor, kGates>;

/// Overwrites out, or without biases adds to it.
struct GateLinearForwardArgs {
  Tensor x;            ///< (R, K) T
  GateTensors weight;  ///< (N, C) A
  GateTensors bias;    ///< (N) A; undefined: the product is added
  GateTensors out;     ///< (R, N) A
  std::int64_t column = 0;
};
inline constinit KernelSlot<GateLinearForwardArgs> gate_linear_fwd{"gate_linear_fwd"};

/// dx = Σ_g dout[g]·weight[g], or += with accumulate_dx; dweight[g] += dout[g]ᵀ·x, dbias[g] +=
/// Σ_r dout[g]. Undefined gradients are not computed. Deterministic.
struct GateLinearBackwardArgs {
  Tensor x;            ///< (R, K) T
  GateTensors weight;  ///< (N, C) A
  GateTensors dout;    ///< (R, N) A
  Tensor dx;           ///< (R, K) T or A, optional
  bool accumulate_dx = false;
  GateTensors dweight;  ///< (N, C) A, optional; of other columns nothing changes
  GateTensors dbias;    ///< (N) A, optional
  std::int64_t column = 0;
};
inline constinit KernelSlot<GateLinearBackwardArgs> gate_linear_bwd{"gate_linear_bwd"};

}  // namespace carousel
