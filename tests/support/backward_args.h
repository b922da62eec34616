// The arguments of a cell's backward that its forward decides: the inputs and what was saved. The
// gradients, given and wanted, are the caller's to fill in.
#pragma once

#include "layers/mlstm/kernels.h"
#include "layers/slstm/kernels.h"

namespace carousel::testing {

inline mlstm::CellBackwardArgs backward_args(const mlstm::CellForwardArgs& forward) {
  return {.in = forward.in,
          .h = forward.h,
          .normaliser = forward.normaliser,
          .denominator_sign = forward.denominator_sign,
          .stabiliser = forward.stabiliser,
          .c_chunks = forward.c_chunks,
          .n_chunks = forward.n_chunks,
          .m_chunks = forward.m_chunks,
          .c_last = forward.c_last,
          .n_last = forward.n_last};
}

inline slstm::CellBackwardArgs backward_args(const slstm::CellForwardArgs& forward) {
  return {.in = forward.in,
          .h = forward.h,
          .gates = forward.gates,
          .states = forward.states,
          .forget_slope = forward.forget_slope};
}

}  // namespace carousel::testing
