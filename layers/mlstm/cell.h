// The differentiable mLSTM cell. Formulas, shapes and precision: layers/mlstm/kernels.h.
#pragma once

#include "core/autograd/variable.h"
#include "layers/mlstm/kernels.h"

namespace carousel::mlstm {

/// (B, NH, DQK, DV), (B, NH, DQK), (B, NH) in the accumulation dtype; all undefined means zero.
struct State {
  Variable c, n, m;
};

struct CellOptions {
  Form form = Form::kChunkwise;
  InputGate gate = InputGate::kExponential;
  int chunk_size = 64;
  double eps = 1e-6;
  bool return_last_state = false;
};

struct CellResult {
  Variable h;  ///< (B, S, NH, DV), q's dtype
  State last;  ///< defined if return_last_state; differentiable in c and n
};

/// Runs the cell over a whole sequence, or over one token with the recurrent form to generate;
/// differentiable in q, k, v, i, f, initial.c and initial.n, with m a constant.
///   q, k     (B, S, NH, DQK) f32, bf16 or f64, none of the sizes 0
///   v        (B, S, NH, DV), q's dtype
///   i, f     (B, S, NH) in the accumulation dtype: gate pre-activations
///   initial  all of c, n and m, or none
///   reset    (B, S) u8, may be undefined: non-zero at the first token of a document
/// Deterministic. Throws UsageError on mismatched shapes, dtypes or devices.
CellResult cell(const Variable& q, const Variable& k, const Variable& v, const Variable& i,
                const Variable& f, const State& initial, const Tensor& reset,
                const CellOptions& options);

}  // namespace carousel::mlstm
