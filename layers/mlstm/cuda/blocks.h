// What the chunkwise kernels share: sizes, and the gates of 64 tokens turned into factors.
//
// With the stabilisers m, the logarithms log F̂_t = F_t − (m_t − m_{t−1}) and log Î_t = i_t − m_t
// turn the cell into linear attention with a decay and an input weight of at most 1 a token. Inside
// a block of 64 tokens with B_t = Σ_{τ<=t} log F̂_τ, the weight of token j in row i >= j is e^{B_i −
// B_j + log Î_j}. Across blocks it is the product carry_i · Π decay (the blocks between) ·
// to_state_j, of factors of at most 1, so that nothing can overflow; a reset makes the factors that
// lead across it exactly zero.
#pragma once

#include <cstdint>

#include "core/base/host_device.h"

namespace carousel::mlstm::cuda {

inline constexpr int kBlock = 64;
/// Tokens between two saved states. h does not depend on it beyond rounding.
inline constexpr int kChunk = 128;
inline constexpr int kChunkBlocks = kChunk / kBlock;

/// Sizes of a call. `blocks` is ⌈time/64⌉ rounded up to whole chunks; tokens past `time` keep the
/// state (F̂ = 1, Î = 0).
struct Problem {
  int batch = 0, time = 0, heads = 0, dqk = 0, dv = 0;
  int blocks = 0;
  float scale = 0.0f;  ///< s = 1/sqrt(dqk)

  CAROUSEL_HOST_DEVICE int units() const { return batch * heads; }
  CAROUSEL_HOST_DEVICE int chunks() const { return blocks / kChunkBlocks; }
  /// Tokens of one unit in padded per-token arrays.
  CAROUSEL_HOST_DEVICE int padded_time() const { return blocks * kBlock; }
  /// Index of (unit, token) in a (B, S, NH) tensor.
  CAROUSEL_HOST_DEVICE std::int64_t row(int unit, int token) const {
    return (static_cast<std::int64_t>(unit / heads) * time + token) * heads + unit % heads;
  }
};

/// One block of one unit: (units, blocks) of these. Logarithms are in base 2.
struct alignas(16) GateBlock {
  float cumulative[kBlock];  ///< B_t, rounded
  float input[kBlock];       ///< log Î_t − remainder_t; −inf past the sequence's end
  int first[kBlock];         ///< the first token of the block that row t sees
  float carry[kBlock];       ///< e^{B_t}; 0 from a reset on: what row t sees of the state before
  float to_state[kBlock];    ///< what the state after the block holds of token t
  float bound[kBlock];       ///< e^{−m_t}: the least denominator
  float decay;               ///< carry of the last token
  float unused[3];
  /// B_t − cumulative_t, which makes e^{cumulative_i − cumulative_j + input_j} · e^{remainder_i}
  /// the weight of j in row i, exact to float32. The kernels that round weights to bf16 leave the
  /// row's factor out but for the denominator: in extreme gates' rows it cancels to a thousandth of
  /// its terms, and B rounds at 1e-5.
  float remainder[kBlock];
};

/// The backward's factors of one block; zero past the sequence's end.
struct alignas(16) GradBlock {
  float weight[kBlock];  ///< s/N_t
  float delta[kBlock];   ///< s·Δ_t
};

}  // namespace carousel::mlstm::cuda
