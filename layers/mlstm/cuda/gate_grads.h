// The last step of every backward on the host: from sums over q·dq and k·dk to di and df.
#pragma once

#include "layers/mlstm/cuda/call.h"

namespace carousel::mlstm::cuda {

inline bool needs_gate_grads(const CellBackwardArgs& args) {
  return args.di.defined() || args.df.defined();
}
inline bool needs_qk_grads(const CellBackwardArgs& args) {
  return args.dq.defined() || args.dk.defined() || needs_gate_grads(args);
}

/// Holds the sums between the kernels that write and read them.
class GateGrads {
 public:
  /// `parts` of every sum over DQK; chunks of `chunk_blocks` blocks; with or without what goes
  /// through states.
  GateGrads(const carousel::cuda::Stream& stream, const Problem& p, const CellBackwardArgs& args,
            int parts, int chunk_blocks, bool states)
      : stream_(stream), p_(p), args_(args), parts_(parts), chunk_blocks_(chunk_blocks) {
    const std::int64_t tokens = static_cast<std::int64_t>(p.units()) * p.padded_time() * parts;
    const std::int64_t chunks = (p.blocks + chunk_blocks - 1) / chunk_blocks;
    const std::int64_t passing = p.units() * chunks;
    memory_ = workspace<float>(args.dh.device(), (states ? 4 : 2) * tokens + passing);
    float* const base = pointer<float>(memory_);
    sums_ = {.q_own = base + passing, .k_own = base + passing + tokens};
    if (states) {
      sums_.q_state = sums_.k_own + tokens;
      sums_.k_state = sums_.q_state + tokens;
      sums_.passing = base;
    }
  }
  const TokenSums& sums() const { return sums_; }

  /// What passes over a chunk that is the whole sequence: ⟨c, dc⟩ + ⟨n, dn⟩ at its end.
  void pass_last_state() {
    sums_.passing = pointer<float>(memory_);
    launch_state_products(stream_, p_, data<float>(args_.c_last), data<float>(args_.n_last),
                          data<float>(args_.dc_last), data<float>(args_.dn_last), sums_.passing);
  }
  void no_passing() { sums_.passing = nullptr; }

  void finish() const {
    if (!needs_gate_grads(args_)) return;
    const Tensor summary =
        workspace<float4>(args_.dh.device(), static_cast<std::int64_t>(p_.units()) * p_.blocks);
    launch_gate_grads(stream_, p_,
                      {.in = gate_inputs(args_.in),
                       .initial_state = args_.in.c0.defined(),
                       .sums = sums_,
                       .parts = parts_,
                       .chunk_blocks = chunk_blocks_,
                       .summary = pointer<float4>(summary),
                       .di = data_or_null<float>(args_.di),
                       .df = data_or_null<float>(args_.df)});
  }

 private:
  const carousel::cuda::Stream& stream_;
  const Problem& p_;
  const CellBackwardArgs& args_;
  int parts_, chunk_blocks_;
  Tensor memory_;
  TokenSums sums_;
};

/// Δ and the weights of every token, from dh and h.
template <class T>
Tensor make_grad_blocks(const carousel::cuda::Stream& stream, const Problem& p,
                        const CellBackwardArgs& args) {
  Tensor blocks =
      workspace<GradBlock>(args.dh.device(), static_cast<std::int64_t>(p.units()) * p.blocks);
  launch_delta<T>(stream, p,
                  {.dh = data<T>(args.dh),
                   .h = data<T>(args.h),
                   .normaliser = data<float>(args.normaliser),
                   .sign = data<float>(args.denominator_sign),
                   .blocks = pointer<GradBlock>(blocks)});
  return blocks;
}

}  // namespace carousel::mlstm::cuda
