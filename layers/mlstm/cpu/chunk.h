// What the forward and the backward of the chunkwise form share: a chunk's weights and the step of
// the state across it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/cpu/blas.h"
#include "layers/mlstm/cpu/gates.h"

namespace carousel::mlstm {

/// Tokens [begin, begin + size) of one head; q, k and v start at its first token, in compute
/// precision.
template <class C>
struct Chunk {
  std::int64_t begin = 0, size = 0;
  Rows<C> q, k, v;
};

/// How a chunk's tokens meet the state: the state after it is decay·C + Σ_j to_state[j]·k_j v_jᵀ,
/// and row i sees carried[i]·C of the state before it.
template <class C>
struct ChunkWeights {
  C* carried;                    ///< one a token; zero from `seen` on
  C* to_state;                   ///< one a token; zero before `state_begin`
  std::int64_t seen = 0;         ///< tokens that see the state before the chunk
  std::int64_t state_begin = 0;  ///< first token that the state after the chunk remembers
  C decay{0};

  ChunkWeights(Arena& arena, std::int64_t size)
      : carried(arena.take<C>(size)), to_state(arena.take<C>(size)) {}

  /// `ignore_state`: the state before the chunk is zero and needs no gradient.
  void compute(const Gates<C>& gates, std::int64_t begin, std::int64_t size, bool ignore_state) {
    seen = ignore_state ? 0 : gates.carried_weights(begin, size, carried);
    decay = seen == size ? carried[size - 1] : C{0};
    state_begin = gates.token_weights(begin, begin + size - 1, to_state) - begin;
  }
};

/// out[t] = scale·weights[t]·rows[t] for t in [begin, end), contiguous from `out`.
template <class C>
void scale_rows(Rows<C> rows, std::int64_t begin, std::int64_t end, std::int64_t width, C scale,
                const C* weights, C* out) {
  for (std::int64_t t = begin; t < end; ++t) {
    const C w = scale * weights[t];
    const C* from = rows[t];
    C* to = out + (t - begin) * width;
#pragma omp simd
    for (std::int64_t d = 0; d < width; ++d) to[d] = w * from[d];
  }
}

/// c_to = decay·c + K̄ᵀV and n_to = decay·n + K̄ᵀ1 with K̄ = to_state ⊙ K, written into `scratch`
/// (size × dqk); c_to and n_to may be c and n.
template <class C>
void advance_state(const Chunk<C>& chunk, const ChunkWeights<C>& w, const Dims& dims, const C* c,
                   const C* n, C* c_to, C* n_to, C* scratch) {
  const std::int64_t rows = chunk.size - w.state_begin;
  scale_rows(chunk.k, w.state_begin, chunk.size, dims.dqk, C{1}, w.to_state, scratch);
  if (c_to != c && w.decay != C{0}) std::copy_n(c, dims.dqk * dims.dv, c_to);
  cpu::gemm(true, false, dims.dqk, dims.dv, rows, C{1}, scratch, dims.dqk, chunk.v[w.state_begin],
            chunk.v.stride, w.decay, c_to, dims.dv);
#pragma omp simd
  for (std::int64_t d = 0; d < dims.dqk; ++d) n_to[d] = w.decay == C{0} ? C{0} : w.decay * n[d];
  for (std::int64_t t = 0; t < rows; ++t) {
#pragma omp simd
    for (std::int64_t d = 0; d < dims.dqk; ++d) n_to[d] += scratch[t * dims.dqk + d];
  }
}

}  // namespace carousel::mlstm
