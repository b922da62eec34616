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

/// Runs the cell over a whole sequence; differentiable in q, k, v, i, f, initial.c and initial.n.
/// `reset` may be undefined. Throws UsageError on mismatched shapes, dtypes or devices.
CellResult cell(const Variable& q, const Variable& k, const Variable& v, const Variable& i,
                const Variable& f, const State& initial, const Tensor& reset,
                const CellOptions& options);

}  // namespace carousel::mlstm
