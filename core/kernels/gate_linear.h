// The products that make a cell's two gates: linears of few outputs on one input, with weights and
// results in the accumulation dtype A of T. What multiplies is x as it is stored: no wide copy of
// it is made or saved.
//   out[g] = x·weight[g]ᵀ + bias[g], g = 0, 1
#pragma once

#include <array>

#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel {

inline constexpr int kGates = 2;
using GateTensors = std::array<Tensor, kGates>;

/// Overwrites out.
struct GateLinearForwardArgs {
  Tensor x;            ///< (R, K) T
  GateTensors weight;  ///< (N, K) A
  GateTensors bias;    ///< (N) A
  GateTensors out;     ///< (R, N) A
};
inline constinit KernelSlot<GateLinearForwardArgs> gate_linear_fwd{"gate_linear_fwd"};

/// dx = Σ_g dout[g]·weight[g], or += with accumulate_dx; dweight[g] += dout[g]ᵀ·x, dbias[g] +=
/// Σ_r dout[g]. Undefined gradients are not computed. Deterministic.
struct GateLinearBackwardArgs {
  Tensor x;            ///< (R, K) T
  GateTensors weight;  ///< (N, K) A
  GateTensors dout;    ///< (R, N) A
  Tensor dx;           ///< (R, K) T or A, optional
  bool accumulate_dx = false;
  GateTensors dweight;  ///< (N, K) A, optional
  GateTensors dbias;    ///< (N) A, optional
};
inline constinit KernelSlot<GateLinearBackwardArgs> gate_linear_bwd{"gate_linear_bwd"};

}  // namespace carousel
