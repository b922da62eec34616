// The sLSTM cell's kernels: arguments, formulas and slots.
//
// NH heads of size D; gates in the order i, f, z, o. Per head, with R dense per head and gate:
//   g  = x_g + R_g·h + b_g          for each gate g
//   m' = max(i, logsigmoid(f) + m)  (m' = i where n = 0: the first step from a zero state)
//   Î = e^{i−m'}, F̂ = e^{logsigmoid(f)+m−m'}
//   c' = F̂·c + Î·tanh(z), n' = F̂·n + Î, h' = σ(o)·c'/n'
// A reset at token t (the first of a document) starts it from the zero state: h, c, n are zero.
// Source: Beck et al. 2024 (arXiv:2405.04517), eqs. 8–18.
//
// The backward treats every m as a constant; gradients of last states likewise.
//
// Precision: x, h and their gradients in T (f32, bf16, f64); r, b, states, gates and their
// gradients in T's accumulation dtype A: bf16 states stall.
#pragma once

#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel::slstm {

inline constexpr int kNumGates = 4;  // i, f, z, o

struct CellInputs {
  Tensor x[kNumGates];    ///< each (B, S, NH, D) T: the input's part of the pre-activation
  Tensor r;               ///< (NH, 4, D, D) A: r[n, g, out, in]
  Tensor b;               ///< (4, NH, D) A
  Tensor reset;           ///< (B, S) u8, optional
  Tensor h0, c0, n0, m0;  ///< each (B, NH, D) A, optional, all or none; zero if absent
};

/// Overwrites every defined output; undefined ones are not computed.
struct CellForwardArgs {
  CellInputs in;
  Tensor h;                               ///< (B, S, NH, D) T, required
  Tensor h_last, c_last, n_last, m_last;  ///< each (B, NH, D) A
  Tensor gates;         ///< (S, B, NH, 4, D) A, for the backward: Î, F̂, tanh(z), σ(o)
  Tensor states;        ///< (S, B, NH, 2, D) A, for the backward: c', n' after each step
  Tensor forget_slope;  ///< (S, B, NH, D) A, for the backward: σ(−f) = 1 − σ(f)
};

/// dr and db accumulate (+=); every other defined gradient is overwritten. in.x and in.b are not
/// read.
struct CellBackwardArgs {
  CellInputs in;
  Tensor h, gates, states, forget_slope;  ///< from the forward
  Tensor dh;                              ///< (B, S, NH, D) T
  Tensor dh_last, dc_last, dn_last;       ///< optional, all or none
  Tensor dx[kNumGates];                   ///< as x
  Tensor dr, db;                          ///< as r, b: +=
  Tensor dh0, dc0, dn0;                   ///< as h0, c0, n0
};

inline constinit KernelSlot<CellForwardArgs> cell_fwd{"slstm_fwd"};
inline constinit KernelSlot<CellBackwardArgs> cell_bwd{"slstm_bwd"};

}  // namespace carousel::slstm
