// The differentiable sLSTM cell. Formulas, shapes and precision: layers/slstm/kernels.h.
#pragma once

#include "core/autograd/variable.h"
#include "layers/slstm/kernels.h"

namespace carousel::slstm {

/// Each (B, NH, D) in the accumulation dtype; all undefined means zero.
struct State {
  Variable h, c, n, m;
};

struct CellResult {
  Variable h;  ///< (B, S, NH, D), the inputs' dtype
  State last;  ///< defined if return_last_state; differentiable in h, c and n
};

/// Runs the cell over a whole sequence.
///   i, f, z, o  (B, S, NH, D) f32, bf16 or f64: the input's part of the gates' pre-activations
///   r, b        (NH, 4, D, D) and (4, NH, D) in the accumulation dtype: r[n, g, out, in]
///   reset       (B, S) u8, may be undefined: non-zero at the first token of a document
/// Differentiable in all of them and in initial.h, initial.c and initial.n. Throws UsageError on
/// mismatched shapes, dtypes or devices.
CellResult cell(const Variable& i, const Variable& f, const Variable& z, const Variable& o,
                const Variable& r, const Variable& b, const State& initial, const Tensor& reset,
                bool return_last_state = false);

}  // namespace carousel::slstm
