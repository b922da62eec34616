// One shape of the mLSTM cell, its work and its tensors.
#pragma once

#include <string>

#include "layers/mlstm/kernels.h"
#include "tests/bench/kernels/table.h"
#include "tests/support/backward_args.h"

namespace carousel::bench {

struct MlstmCase {
  std::int64_t batch, heads, time, dqk, dv;
  Inputs inputs = Inputs::kRandom;

  std::string name() const {
    return fmt::format("mLSTM B{} NH{} S{} {}/{}", batch, heads, time, dqk, dv);
  }
  double tokens() const { return static_cast<double>(batch * heads * time); }
  /// What any version must move: q, k, v, h; backwards q, k, v, h, dh, dq, dk, dv.
  double forward_bytes() const { return tokens() * 2.0 * static_cast<double>(2 * dqk + 2 * dv); }
  double backward_bytes() const { return tokens() * 2.0 * static_cast<double>(4 * dqk + 4 * dv); }
  /// Of the chunkwise form at 128 tokens a chunk.
  double forward_flops() const {
    return tokens() * static_cast<double>(4 * dqk * dv + 128 * (dqk + dv));
  }
  double backward_flops() const {
    return tokens() * static_cast<double>(8 * dqk * dv + 128 * (3 * dqk + 2 * dv));
  }
};

/// All tensors of a case on the GPU. Random forget gates have a mean of 4: memories of some fifty
/// tokens.
struct MlstmCall {
  mlstm::CellForwardArgs forward;
  mlstm::CellBackwardArgs backward;

  explicit MlstmCall(const MlstmCase& c) {
    const Shape qk{c.batch, c.time, c.heads, c.dqk};
    const Shape vh{c.batch, c.time, c.heads, c.dv};
    const Shape gates{c.batch, c.time, c.heads};
    const bool extreme = c.inputs == Inputs::kExtremeGates;
    mlstm::CellInputs& in = forward.in;
    in.q = values(qk, kBF16, 11);
    in.k = values(qk, kBF16, 12);
    in.v = values(vh, kBF16, 13);
    in.i = values(gates, kF32, 14, extreme ? 15.0 : 1.0);
    in.f = values(gates, kF32, 15, extreme ? 15.0 : 2.0, extreme ? 0.0 : 4.0);
    if (c.inputs == Inputs::kResets) in.reset = resets_for(c.batch, c.time);
    forward.h = room(vh, kBF16);
    forward.normaliser = room(gates, kF32);
    forward.denominator_sign = room(gates, kF32);
    forward.stabiliser = room(gates, kF32);
    const mlstm::SavedStates saved = saved_states(in);
    const std::int64_t chunks = (c.time + saved.chunk_size - 1) / saved.chunk_size;
    forward.c_chunks = room({c.batch, c.heads, chunks, c.dqk, c.dv}, saved.dtype);
    forward.n_chunks = room({c.batch, c.heads, chunks, c.dqk}, kF32);
    backward = testing::backward_args(forward);
    backward.dh = values(vh, kBF16, 16);
    backward.dq = room(qk, kBF16);
    backward.dk = room(qk, kBF16);
    backward.dv = room(vh, kBF16);
    backward.di = room(gates, kF32);
    backward.df = room(gates, kF32);
  }
  void run_forward() const {
    mlstm::cell_fwd[static_cast<int>(mlstm::Form::kChunkwise)](kGpu, forward);
  }
  void run_backward() const {
    mlstm::cell_bwd[static_cast<int>(mlstm::Form::kChunkwise)](kGpu, backward);
  }
  void run() const {
    run_forward();
    run_backward();
  }
};

}  // namespace carousel::bench
