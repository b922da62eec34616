// The mLSTM cell's kernels: arguments, formulas and slots. Three forms of one function.
//
// Per head, with F = logsigmoid(f) and s = 1/sqrt(DQK) (exponential input gate):
//   m' = max(F + m, i)            C' = e^{F+m−m'} C + e^{i−m'} k vᵀ
//   n' = e^{F+m−m'} n + e^{i−m'} k
//   h  = s·qᵀC' / (max(|s·qᵀn'|, e^{−m'}) + eps)
// Sigmoid input gate: C' = σ(f) C + σ(i) k vᵀ, n' = σ(f) n + σ(i) k,
//   h  = s·qᵀC' / (max(|s·qᵀn'|, 1) + eps); m is 0 throughout, and m0 is not read.
//
// A reset at token t (the first of a document) starts it from the zero state: C, n and m are zero
// before it, so that packed documents give the same h and gradients as separate ones.
//
// Source: Beck et al. 2024 (arXiv:2405.04517), eqs. 19–27; chunkwise: Beck et al. 2025
// (arXiv:2503.14376), and Mamba-2's state-space duality (arXiv:2405.21060).
//
// m cancels from h but for eps, so the backward treats every m as a constant. Gradients of a last
// state are taken at constant m too; chained segments therefore get exact gradients.
//
// Precision: q, k, v, h and their gradients in T (f32, bf16, f64); everything else, and all
// accumulation, in T's accumulation dtype A (f32 for bf16).
#pragma once

#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel::mlstm {

enum class InputGate { kExponential, kSigmoid };
/// Recurrent: a scan over time. Parallel: the quadratic form. Chunkwise: quadratic inside chunks,
/// recurrent across them.
enum class Form { kRecurrent, kParallel, kChunkwise };
inline constexpr int kNumForms = 3;

/// What forward and backward share. B batch, S time, NH heads, DQK and DV head sizes; any S >= 1.
struct CellInputs {
  Tensor q, k;        ///< (B, S, NH, DQK) T
  Tensor v;           ///< (B, S, NH, DV) T
  Tensor i, f;        ///< (B, S, NH) A: gate pre-activations
  Tensor reset;       ///< (B, S) u8, optional: non-zero at the first token of a document
  Tensor c0, n0, m0;  ///< (B, NH, DQK, DV), (B, NH, DQK), (B, NH) A, optional, all or none: the
                      ///< initial state, zero if absent
  InputGate gate = InputGate::kExponential;
  double eps = 1e-6;
  int chunk_size = 64;  ///< chunkwise form: 1 … any; need not divide S
};

/// What the chunkwise form saves for its backward. On the CPU the state before each of the caller's
/// chunks in A; on CUDA before every 128 tokens in T, each matrix in the kernels' own element
/// order.
struct SavedStates {
  std::int64_t chunk_size = 0;
  DType dtype = DType::kF32;  ///< of c_chunks
};
inline SavedStates saved_states(const CellInputs& in) {
  if (modelled_type(in.q.device()) == DeviceType::kCuda) return {128, in.q.dtype()};
  return {in.chunk_size, accumulation_dtype(in.q.dtype())};
}

/// Overwrites every defined output; undefined ones are not computed.
struct CellForwardArgs {
  CellInputs in;
  Tensor h;           ///< (B, S, NH, DV) T, required
  Tensor normaliser;  ///< (B, S, NH) A: the denominator, max(|s·qᵀn|, e^{−m}) + eps; what
                      ///< the backward divides by
  Tensor denominator_sign;  ///< (B, S, NH) A: sign(s·qᵀn) where |s·qᵀn| > e^{−m}, else 0
  Tensor stabiliser;        ///< (B, S, NH) A: m of each row; zeros for the sigmoid gate
  Tensor c_last, n_last, m_last;        ///< as c0, n0, m0: the state after the last token
  Tensor c_chunks, n_chunks, m_chunks;  ///< (B, NH, NC, DQK, DV), (B, NH, NC, DQK), (B, NH, NC):
                                        ///< the state before each chunk, for the backward; NC and
                                        ///< c_chunks' dtype are saved_states(in)'s, n and m are A;
                                        ///< chunkwise form only
};

/// Overwrites every defined gradient; undefined ones are not computed.
struct CellBackwardArgs {
  CellInputs in;
  Tensor h, normaliser, denominator_sign, stabiliser;  ///< from the forward
  Tensor c_chunks, n_chunks, m_chunks;  ///< chunkwise form: from the forward; if undefined they are
                                        ///< recomputed
  Tensor c_last, n_last;                ///< from the forward; needed where dc_last is given
  Tensor dh;                            ///< (B, S, NH, DV) T
  Tensor dc_last, dn_last;              ///< as c0, n0; optional, both or none
  Tensor dq, dk, dv;                    ///< as q, k, v
  Tensor di, df;                        ///< as i, f
  Tensor dc0, dn0;                      ///< as c0, n0
};

/// cell_fwd[Form], cell_bwd[Form]. All deterministic.
inline constinit KernelSlot<CellForwardArgs> cell_fwd[kNumForms] = {
    KernelSlot<CellForwardArgs>{"mlstm_recurrent_fwd"},
    KernelSlot<CellForwardArgs>{"mlstm_parallel_fwd"},
    KernelSlot<CellForwardArgs>{"mlstm_chunkwise_fwd"}};
inline constinit KernelSlot<CellBackwardArgs> cell_bwd[kNumForms] = {
    KernelSlot<CellBackwardArgs>{"mlstm_recurrent_bwd"},
    KernelSlot<CellBackwardArgs>{"mlstm_parallel_bwd"},
    KernelSlot<CellBackwardArgs>{"mlstm_chunkwise_bwd"}};

}  // namespace carousel::mlstm
