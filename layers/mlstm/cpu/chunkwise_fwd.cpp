// The chunkwise and the parallel form, forward. With S̄, Q̄ and the weights of gates.h, a chunk is
//   H = (S̄V + Q̄C) / N,  N = max(|S̄1 + Q̄n|, e^{−m}) + eps
// where C and n are the state before it. The parallel form is this kernel with one chunk of length
// S: what remains then is exactly the quadratic form. Chunks are cut into tiles of kTileRows rows,
// each against the columns up to its own end, so that most of what lies above the diagonal is never
// computed.
//
// Precision: bf16 operands are widened to float32 a chunk at a time; h is rounded once.
#include <algorithm>
#include <cmath>

#include "core/cpu/blas.h"
#include "core/cpu/dispatch.h"
#include "layers/mlstm/cpu/chunk.h"
#include "layers/mlstm/cpu/gates.h"
#include "layers/mlstm/cpu/heads.h"
#include "layers/mlstm/cpu/kernels.h"
#include "layers/mlstm/cpu/normaliser.h"
#include "layers/mlstm/kernels.h"

namespace carousel::mlstm {
namespace {

template <class T>
class Forward {
  using C = cpu::compute_t<T>;

 public:
  Forward(const CellForwardArgs& args, std::int64_t chunk_size)
      : args_(args),
        dims_(dims_of(args.in)),
        chunk_(std::min(chunk_size, dims_.time)),
        scale_(static_cast<C>(1.0 / std::sqrt(static_cast<double>(dims_.dqk)))) {}

  void run() const {
    Arena sizes;
    const Scratch measured(sizes, dims_, chunk_);
    const std::int64_t work = dims_.time * (dims_.dqk + chunk_) * (dims_.dqk + dims_.dv);
    for_each_head(dims_, work, sizes.used(), [this](std::int64_t unit, Arena arena) {
      Scratch scratch(arena, dims_, chunk_);
      run_head(unit, scratch);
    });
  }

 private:
  struct Scratch {
    Scratch(Arena& arena, const Dims& dims, std::int64_t chunk)
        : gates(arena, dims.time),
          weights(arena, chunk),
          q(arena.take<C>(chunk * dims.dqk)),
          k(arena.take<C>(chunk * dims.dqk)),
          v(arena.take<C>(chunk * dims.dv)),
          h(arena.take<C>(chunk * dims.dv)),
          scaled(arena.take<C>(chunk * dims.dqk)),
          denominator(arena.take<C>(chunk)),
          row_weights(arena.take<C>(chunk)),
          scores(arena.take<C>(std::min(chunk, kTileRows) * chunk)),
          c(arena.take<C>(dims.dqk * dims.dv)),
          n(arena.take<C>(dims.dqk)) {}

    Gates<C> gates;
    ChunkWeights<C> weights;
    C *q, *k, *v, *h;  // widened operands and h before rounding, bf16 only
    C* scaled;         // Q̄, later K̄
    C* denominator;    // S̄1 + Q̄n
    C* row_weights;    // of the tile's present row
    C* scores;         // S̄ of one tile
    C *c, *n;          // the running state where no output holds it
  };

  void run_head(std::int64_t unit, Scratch& s) const {
    s.gates.scan(args_.in, dims_, unit);
    const std::int64_t chunks = (dims_.time + chunk_ - 1) / chunk_;
    const std::int64_t c_size = dims_.dqk * dims_.dv;
    C* c_chunks = block_of<C>(args_.c_chunks, dims_, unit);
    C* n_chunks = block_of<C>(args_.n_chunks, dims_, unit);
    C* m_chunks = block_of<C>(args_.m_chunks, dims_, unit);
    C* c_last = block_of<C>(args_.c_last, dims_, unit);
    C* n_last = block_of<C>(args_.n_last, dims_, unit);

    C* c = c_chunks != nullptr ? c_chunks : s.c;
    C* n = n_chunks != nullptr ? n_chunks : s.n;
    copy_or_zero(block_of<C>(args_.in.c0, dims_, unit), c_size, c);
    copy_or_zero(block_of<C>(args_.in.n0, dims_, unit), dims_.dqk, n);
    for (std::int64_t i = 0; i < chunks; ++i) {
      const std::int64_t begin = i * chunk_;
      const Chunk<C> chunk = load(unit, begin, s);
      s.weights.compute(s.gates, begin, chunk.size, i == 0 && !args_.in.c0.defined());
      if (m_chunks != nullptr) m_chunks[i] = s.gates.m_before(begin);
      compute_chunk(unit, chunk, c, n, s);

      const bool last = i + 1 == chunks;
      if (last && c_last == nullptr && n_last == nullptr) break;
      C* c_next = last ? c_last : c_chunks != nullptr ? c_chunks + (i + 1) * c_size : nullptr;
      C* n_next = last ? n_last : n_chunks != nullptr ? n_chunks + (i + 1) * dims_.dqk : nullptr;
      if (c_next == nullptr) c_next = s.c;
      if (n_next == nullptr) n_next = s.n;
      advance_state(chunk, s.weights, dims_, c, n, c_next, n_next, s.scaled);
      c = c_next;
      n = n_next;
    }
    if (args_.m_last.defined()) {
      *block_of<C>(args_.m_last, dims_, unit) = s.gates.m(dims_.time - 1);
    }
  }

  Chunk<C> load(std::int64_t unit, std::int64_t begin, Scratch& s) const {
    const std::int64_t size = std::min(chunk_, dims_.time - begin);
    const auto widen = [&](const Tensor& x, std::int64_t width, C* scratch) {
      return widened(rows_of<T>(x, dims_, unit).from(begin), size, width, scratch);
    };
    return {begin, size, widen(args_.in.q, dims_.dqk, s.q), widen(args_.in.k, dims_.dqk, s.k),
            widen(args_.in.v, dims_.dv, s.v)};
  }

  // h and the statistics of one chunk, from the state (c, n) before it.
  void compute_chunk(std::int64_t unit, const Chunk<C>& chunk, const C* c, const C* n,
                     Scratch& s) const {
    const Rows<T> out = rows_of<T>(args_.h, dims_, unit).from(chunk.begin);
    const Rows<C> h = compute_target(out, dims_.dv, s.h);
    const std::int64_t seen = s.weights.seen;
    scale_rows(chunk.q, 0, seen, dims_.dqk, scale_, s.weights.carried, s.scaled);
    cpu::gemm(false, false, seen, dims_.dv, dims_.dqk, C{1}, s.scaled, dims_.dqk, c, dims_.dv, C{0},
              h.data, h.stride);
    for (std::int64_t t = 0; t < seen; ++t) {
      s.denominator[t] = dot(s.scaled + t * dims_.dqk, n, dims_.dqk);
    }
    std::fill(s.denominator + seen, s.denominator + chunk.size, C{0});
    for (std::int64_t t = seen; t < chunk.size; ++t) std::fill_n(h[t], dims_.dv, C{0});
    for (std::int64_t begin = 0; begin < chunk.size; begin += kTileRows) {
      add_tile(chunk, begin, std::min(begin + kTileRows, chunk.size), h, s);
    }
    normalise(unit, chunk, h, s);
    round_into(out, chunk.size, dims_.dv, h);
  }

  // Adds S̄V to h and S̄1 to the denominator for rows [begin, end) of the chunk.
  void add_tile(const Chunk<C>& chunk, std::int64_t begin, std::int64_t end, Rows<C> h,
                Scratch& s) const {
    C* weights = s.row_weights;
    const std::int64_t first =
        s.gates.token_weights(chunk.begin, chunk.begin + begin, weights) - chunk.begin;
    weights += first;
    const std::int64_t columns = end - first;
    cpu::gemm(false, true, end - begin, columns, dims_.dqk, scale_, chunk.q[begin], chunk.q.stride,
              chunk.k[first], chunk.k.stride, C{0}, s.scores, columns);
    for (std::int64_t t = begin; t < end; ++t) {
      if (t > begin) s.gates.advance_weights(chunk.begin + t, t - first, weights);
      C* scores = s.scores + (t - begin) * columns;
      C sum{0};
#pragma omp simd reduction(+ : sum)
      for (std::int64_t j = 0; j <= t - first; ++j) {
        scores[j] *= weights[j];
        sum += scores[j];
      }
      s.denominator[t] += sum;
      std::fill(scores + (t - first + 1), scores + columns, C{0});
    }
    cpu::gemm(false, false, end - begin, dims_.dv, columns, C{1}, s.scores, columns, chunk.v[first],
              chunk.v.stride, C{1}, h[begin], h.stride);
  }

  void normalise(std::int64_t unit, const Chunk<C>& chunk, Rows<C> h, const Scratch& s) const {
    const Rows<C> normaliser = rows_of<C>(args_.normaliser, dims_, unit);
    const Rows<C> sign = rows_of<C>(args_.denominator_sign, dims_, unit);
    const Rows<C> stabiliser = rows_of<C>(args_.stabiliser, dims_, unit);
    for (std::int64_t t = 0; t < chunk.size; ++t) {
      const C m = s.gates.m(chunk.begin + t);
      const Normaliser<C> norm(s.denominator[t], m, static_cast<C>(args_.in.eps));
      const C inverse = C{1} / norm.value;
#pragma omp simd
      for (std::int64_t d = 0; d < dims_.dv; ++d) h[t][d] *= inverse;
      if (normaliser) *normaliser[chunk.begin + t] = norm.value;
      if (sign) *sign[chunk.begin + t] = norm.sign;
      if (stabiliser) *stabiliser[chunk.begin + t] = m;
    }
  }

  const CellForwardArgs& args_;
  Dims dims_;
  std::int64_t chunk_;
  C scale_;
};

void chunkwise_fwd(const CellForwardArgs& args) {
  cpu::dispatch_floating("mlstm_chunkwise_fwd", args.in.q.dtype(),
                         [&]<class T>() { Forward<T>(args, args.in.chunk_size).run(); });
}

void parallel_fwd(const CellForwardArgs& args) {
  cpu::dispatch_floating("mlstm_parallel_fwd", args.in.q.dtype(),
                         [&]<class T>() { Forward<T>(args, args.in.q.dim(1)).run(); });
}

}  // namespace

void register_cpu_chunkwise_fwd() {
  cell_fwd[static_cast<int>(Form::kChunkwise)].set(DeviceType::kCpu, chunkwise_fwd);
  cell_fwd[static_cast<int>(Form::kParallel)].set(DeviceType::kCpu, parallel_fwd);
}

}  // namespace carousel::mlstm
