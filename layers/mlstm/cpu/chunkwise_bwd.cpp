// The chunkwise and the parallel form, backward; notation of chunkwise_fwd.cpp. Chunks are taken
// from the last to the first with (dC, dn), the gradient of the state behind the chunk, in hand.
// With d̂H = dH / N and Δ_i = −sign_i·(dH_i·H_i)/N_i, the gradient that reaches the denominator:
//   dS = (d̂H·Vᵀ + Δ) ⊙ W          W: the decay weights, S̄ = s·QKᵀ ⊙ W
//   dQ = s·dS·K + s·carried ⊙ (d̂H·Cᵀ + Δ·nᵀ)
//   dK = s·dSᵀQ + to_state ⊙ (V·dCᵀ + dn)
//   dV = S̄ᵀd̂H + K̄·dC
//   dC ← decay·dC + Q̄ᵀd̂H,  dn ← decay·dn + Q̄ᵀΔ
// The gates' gradients follow from G = (d̂H·Vᵀ + Δ) ⊙ S̄, the gradient of the exponents:
//   d log Î_j = Σ_i G_ij + k_j·dK_j (state's part)
//   d log F̂_t = Σ_{i>=t} Σ_{j<t} G_ij + Σ_{i>=t} q_i·dQ_i (state's part) + Σ_{j<t} k_j·dK_j
//   (state's
//               part) + decay·(⟨dC, C⟩ + ⟨dn, n⟩)
// Every term of a sum belongs to it: nothing is found as a difference of larger sums, so gradients
// across a reset are exactly zero and long sequences lose no digits.
//
// Precision: as the forward; gradients are rounded once.
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
class Backward {
  using C = cpu::compute_t<T>;

 public:
  Backward(const CellBackwardArgs& args, std::int64_t chunk_size)
      : args_(args),
        dims_(dims_of(args.in)),
        chunk_(std::min(chunk_size, dims_.time)),
        scale_(static_cast<C>(1.0 / std::sqrt(static_cast<double>(dims_.dqk)))) {}

  void run() const {
    Arena sizes;
    const Scratch measured(sizes, *this);
    const std::int64_t work = 2 * dims_.time * (dims_.dqk + chunk_) * (dims_.dqk + dims_.dv);
    for_each_head(dims_, work, sizes.used(), [this](std::int64_t unit, Arena arena) {
      Scratch scratch(arena, *this);
      run_head(unit, scratch);
    });
  }

 private:
  struct Scratch {
    Scratch(Arena& arena, const Backward& b)
        : gates(arena, b.dims_.time),
          weights(arena, b.chunk_),
          q(arena.take<C>(b.chunk_ * b.dims_.dqk)),
          k(arena.take<C>(b.chunk_ * b.dims_.dqk)),
          v(arena.take<C>(b.chunk_ * b.dims_.dv)),
          dq(arena.take<C>(b.chunk_ * b.dims_.dqk)),
          dk(arena.take<C>(b.chunk_ * b.dims_.dqk)),
          dv(arena.take<C>(b.chunk_ * b.dims_.dv)),
          dnumerator(arena.take<C>(b.chunk_ * b.dims_.dv)),
          ddenominator(arena.take<C>(b.chunk_)),
          scaled(arena.take<C>(b.chunk_ * b.dims_.dqk)),
          row_weights(arena.take<C>(b.chunk_)),
          scores(arena.take<C>(std::min(b.chunk_, kTileRows) * b.chunk_)),
          dscores(arena.take<C>(std::min(b.chunk_, kTileRows) * b.chunk_)),
          dexponents(arena.take<C>(std::min(b.chunk_, kTileRows) * b.chunk_)),
          dlog_input(arena.take<C>(b.chunk_)),
          dlog_forget(arena.take<C>(b.chunk_)),
          dcarried(arena.take<C>(b.chunk_)),
          dto_state(arena.take<C>(b.chunk_)),
          dc(arena.take<C>(b.dims_.dqk * b.dims_.dv)),
          dn(arena.take<C>(b.dims_.dqk)),
          c_chunks(arena.take<C>(b.stored_states() * b.dims_.dqk * b.dims_.dv)),
          n_chunks(arena.take<C>(b.stored_states() * b.dims_.dqk)) {}

    Gates<C> gates;
    ChunkWeights<C> weights;
    C *q, *k, *v, *dq, *dk, *dv;       // widened operands, and gradients before rounding
    C *dnumerator, *ddenominator;      // d̂H and Δ
    C* scaled;                         // K̄, later Q̄
    C* row_weights;                    // W of the tile's present row
    C *scores, *dscores, *dexponents;  // S̄, dS and G of one tile
    C *dlog_input, *dlog_forget;       // one a token of the chunk
    C *dcarried, *dto_state;           // d of the logarithms of the weights, one a token
    C *dc, *dn;
    C *c_chunks, *n_chunks;  // states before each chunk, if the forward saved none
  };

  /// The present chunk: operands, where its gradients go, and the state before it.
  struct Work {
    Chunk<C> chunk;
    Rows<C> dq, dk, dv;
    const C *c, *n;
    bool has_dstate;  // (dC, dn) are not zero
  };

  std::int64_t chunks() const { return (dims_.time + chunk_ - 1) / chunk_; }
  std::int64_t stored_states() const { return args_.c_chunks.defined() ? 0 : chunks(); }

  void run_head(std::int64_t unit, Scratch& s) const {
    s.gates.scan(args_.in, dims_, unit);
    const C* c_chunks = block_of<C>(args_.c_chunks, dims_, unit);
    const C* n_chunks = block_of<C>(args_.n_chunks, dims_, unit);
    if (c_chunks == nullptr) {
      recompute_states(unit, s);
      c_chunks = s.c_chunks;
      n_chunks = s.n_chunks;
    }
    const C* dc_last = block_of<C>(args_.dc_last, dims_, unit);
    const C* dn_last = block_of<C>(args_.dn_last, dims_, unit);
    const std::int64_t c_size = dims_.dqk * dims_.dv;
    copy_or_zero(dc_last, c_size, s.dc);
    copy_or_zero(dn_last, dims_.dqk, s.dn);
    bool has_dstate = dc_last != nullptr;
    const bool initial_matters =
        args_.in.c0.defined() || args_.dc0.defined() || args_.dn0.defined();
    for (std::int64_t i = chunks() - 1; i >= 0; --i) {
      const std::int64_t begin = i * chunk_;
      const std::int64_t size = std::min(chunk_, dims_.time - begin);
      s.weights.compute(s.gates, begin, size, i == 0 && !initial_matters);
      run_chunk(unit, begin, size, c_chunks + i * c_size, n_chunks + i * dims_.dqk, has_dstate, s);
      has_dstate = true;
    }
    if (C* dc0 = block_of<C>(args_.dc0, dims_, unit)) std::copy_n(s.dc, c_size, dc0);
    if (C* dn0 = block_of<C>(args_.dn0, dims_, unit)) std::copy_n(s.dn, dims_.dqk, dn0);
  }

  void recompute_states(std::int64_t unit, Scratch& s) const {
    const std::int64_t c_size = dims_.dqk * dims_.dv;
    copy_or_zero(block_of<C>(args_.in.c0, dims_, unit), c_size, s.c_chunks);
    copy_or_zero(block_of<C>(args_.in.n0, dims_, unit), dims_.dqk, s.n_chunks);
    for (std::int64_t i = 0; i + 1 < chunks(); ++i) {
      const Chunk<C> chunk = load(unit, i * chunk_, chunk_, s);
      s.weights.compute(s.gates, chunk.begin, chunk.size, i == 0 && !args_.in.c0.defined());
      C* c = s.c_chunks + i * c_size;
      C* n = s.n_chunks + i * dims_.dqk;
      advance_state(chunk, s.weights, dims_, c, n, c + c_size, n + dims_.dqk, s.scaled);
    }
  }

  Chunk<C> load(std::int64_t unit, std::int64_t begin, std::int64_t size, Scratch& s) const {
    const auto widen = [&](const Tensor& x, std::int64_t width, C* scratch) {
      return widened(rows_of<T>(x, dims_, unit).from(begin), size, width, scratch);
    };
    return {begin, size, widen(args_.in.q, dims_.dqk, s.q), widen(args_.in.k, dims_.dqk, s.k),
            widen(args_.in.v, dims_.dv, s.v)};
  }

  void run_chunk(std::int64_t unit, std::int64_t begin, std::int64_t size, const C* c, const C* n,
                 bool has_dstate, Scratch& s) const {
    const auto out = [&](const Tensor& gradient) {
      return gradient.defined() ? rows_of<T>(gradient, dims_, unit).from(begin) : Rows<T>{};
    };
    const Rows<T> dq = out(args_.dq);
    const Rows<T> dk = out(args_.dk);
    const Rows<T> dv = out(args_.dv);
    const Work w{load(unit, begin, size, s),
                 compute_target(dq, dims_.dqk, s.dq),
                 compute_target(dk, dims_.dqk, s.dk),
                 compute_target(dv, dims_.dv, s.dv),
                 c,
                 n,
                 has_dstate};
    divide_by_normaliser(unit, begin, size, s);
    const C ddecay = to_state_gradients(w, s);
    carried_gradients(w, s);
    std::fill_n(s.dlog_input, size, C{0});
    for (std::int64_t tile = (size - 1) / kTileRows * kTileRows; tile >= 0; tile -= kTileRows) {
      tile_gradients(w, tile, std::min(tile + kTileRows, size), s);
    }
    round_into(dq, size, dims_.dqk, w.dq);
    round_into(dk, size, dims_.dqk, w.dk);
    round_into(dv, size, dims_.dv, w.dv);
    gate_gradients(unit, w, ddecay, s);
  }

  // d̂H and Δ of the chunk.
  void divide_by_normaliser(std::int64_t unit, std::int64_t begin, std::int64_t size,
                            Scratch& s) const {
    const Rows<T> dh = rows_of<T>(args_.dh, dims_, unit);
    const Rows<T> h = rows_of<T>(args_.h, dims_, unit);
    const Rows<C> normaliser = rows_of<C>(args_.normaliser, dims_, unit);
    const Rows<C> sign = rows_of<C>(args_.denominator_sign, dims_, unit);
    for (std::int64_t t = 0; t < size; ++t) {
      const std::int64_t at = begin + t;
      s.ddenominator[t] = split_gradient(dh[at], h[at], dims_.dv, *normaliser[at], *sign[at],
                                         s.dnumerator + t * dims_.dv);
    }
  }

  // What flows back from the state behind the chunk: writes dK and dV, and dto_state. Returns the
  // gradient of log decay.
  C to_state_gradients(const Work& w, Scratch& s) const {
    const Chunk<C>& chunk = w.chunk;
    const std::int64_t first = w.has_dstate ? s.weights.state_begin : chunk.size;
    const std::int64_t rows = chunk.size - first;
    for (std::int64_t t = 0; t < first; ++t) {
      std::fill_n(w.dk[t], dims_.dqk, C{0});
      std::fill_n(w.dv[t], dims_.dv, C{0});
    }
    std::fill_n(s.dto_state, first, C{0});
    if (rows == 0) return C{0};
    const C* dn = s.dn;
    cpu::gemm(false, true, rows, dims_.dqk, dims_.dv, C{1}, chunk.v[first], chunk.v.stride, s.dc,
              dims_.dv, C{0}, w.dk[first], w.dk.stride);
    for (std::int64_t t = first; t < chunk.size; ++t) {
      const C weight = s.weights.to_state[t];
      const C* k = chunk.k[t];
      C* dk = w.dk[t];
      C product{0};
#pragma omp simd reduction(+ : product)
      for (std::int64_t d = 0; d < dims_.dqk; ++d) {
        dk[d] = weight * (dk[d] + dn[d]);
        product += dk[d] * k[d];
      }
      s.dto_state[t] = product;
    }
    scale_rows(chunk.k, first, chunk.size, dims_.dqk, C{1}, s.weights.to_state, s.scaled);
    cpu::gemm(false, false, rows, dims_.dv, dims_.dqk, C{1}, s.scaled, dims_.dqk, s.dc, dims_.dv,
              C{0}, w.dv[first], w.dv.stride);
    if (s.weights.decay == C{0}) return C{0};
    return s.weights.decay * (dot(s.dc, w.c, dims_.dqk * dims_.dv) + dot(s.dn, w.n, dims_.dqk));
  }

  // What the chunk saw of the state before it: writes dQ and dcarried, and takes (dC, dn) from
  // behind the chunk to before it.
  void carried_gradients(const Work& w, Scratch& s) const {
    const Chunk<C>& chunk = w.chunk;
    const std::int64_t seen = s.weights.seen;
    const C* n = w.n;
    C* dn = s.dn;
    cpu::gemm(false, true, seen, dims_.dqk, dims_.dv, C{1}, s.dnumerator, dims_.dv, w.c, dims_.dv,
              C{0}, w.dq.data, w.dq.stride);
    for (std::int64_t t = 0; t < seen; ++t) {
      const C weight = scale_ * s.weights.carried[t];
      const C delta = s.ddenominator[t];
      const C* q = chunk.q[t];
      C* dq = w.dq[t];
      C product{0};
#pragma omp simd reduction(+ : product)
      for (std::int64_t d = 0; d < dims_.dqk; ++d) {
        dq[d] = weight * (dq[d] + delta * n[d]);
        product += dq[d] * q[d];
      }
      s.dcarried[t] = product;
    }
    std::fill(s.dcarried + seen, s.dcarried + chunk.size, C{0});
    for (std::int64_t t = seen; t < chunk.size; ++t) std::fill_n(w.dq[t], dims_.dqk, C{0});

    scale_rows(chunk.q, 0, seen, dims_.dqk, scale_, s.weights.carried, s.scaled);
    const C decay = s.weights.decay;
    cpu::gemm(true, false, dims_.dqk, dims_.dv, seen, C{1}, s.scaled, dims_.dqk, s.dnumerator,
              dims_.dv, decay, s.dc, dims_.dv);
#pragma omp simd
    for (std::int64_t d = 0; d < dims_.dqk; ++d) dn[d] *= decay;
    for (std::int64_t t = 0; t < seen; ++t) {
      const C delta = s.ddenominator[t];
      const C* q = s.scaled + t * dims_.dqk;
#pragma omp simd
      for (std::int64_t d = 0; d < dims_.dqk; ++d) dn[d] += delta * q[d];
    }
  }

  // Adds the gradients inside the chunk for its rows [begin, end), which come after all rows below
  // them: dlog_input holds Σ_i G_ij over the rows so far.
  void tile_gradients(const Work& w, std::int64_t begin, std::int64_t end, Scratch& s) const {
    const Chunk<C>& chunk = w.chunk;
    C* weights = s.row_weights;
    const std::int64_t first =
        s.gates.token_weights(chunk.begin, chunk.begin + begin, weights) - chunk.begin;
    weights += first;
    const std::int64_t rows = end - begin;
    const std::int64_t columns = end - first;
    const C* dnumerator = s.dnumerator + begin * dims_.dv;
    cpu::gemm(false, true, rows, columns, dims_.dqk, scale_, chunk.q[begin], chunk.q.stride,
              chunk.k[first], chunk.k.stride, C{0}, s.scores, columns);
    cpu::gemm(false, true, rows, columns, dims_.dv, C{1}, dnumerator, dims_.dv, chunk.v[first],
              chunk.v.stride, C{0}, s.dscores, columns);
    for (std::int64_t t = begin; t < end; ++t) {
      if (t > begin) s.gates.advance_weights(chunk.begin + t, t - first, weights);
      weigh_row(t - first + 1, columns, weights, s.ddenominator[t], (t - begin) * columns, s);
    }
    for (std::int64_t t = end - 1; t >= begin; --t) {
      s.dlog_forget[t] =
          sum_exponents(s.dexponents + (t - begin) * columns, t - first, s.dlog_input + first);
    }
    cpu::gemm(false, false, rows, dims_.dqk, columns, scale_, s.dscores, columns, chunk.k[first],
              chunk.k.stride, C{1}, w.dq[begin], w.dq.stride);
    cpu::gemm(true, false, columns, dims_.dqk, rows, scale_, s.dscores, columns, chunk.q[begin],
              chunk.q.stride, C{1}, w.dk[first], w.dk.stride);
    cpu::gemm(true, false, columns, dims_.dv, rows, C{1}, s.scores, columns, dnumerator, dims_.dv,
              C{1}, w.dv[first], w.dv.stride);
  }

  // One row of the tile buffers, at `offset`: from s·QKᵀ and d̂H·Vᵀ to S̄, dS and G.
  void weigh_row(std::int64_t visible, std::int64_t columns, const C* weights, C delta,
                 std::int64_t offset, Scratch& s) const {
    C* scores = s.scores + offset;
    C* dscores = s.dscores + offset;
    C* dexponents = s.dexponents + offset;
#pragma omp simd
    for (std::int64_t j = 0; j < visible; ++j) {
      const C gradient = dscores[j] + delta;
      scores[j] *= weights[j];
      dscores[j] = gradient * weights[j];
      dexponents[j] = gradient * scores[j];
    }
    std::fill(scores + visible, scores + columns, C{0});
    std::fill(dscores + visible, dscores + columns, C{0});
  }

  // Adds row t of G to the column sums and returns those of the `before` columns before t, added
  // up.
  static C sum_exponents(const C* row, std::int64_t before, C* column_sums) {
    C sum{0};
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = 0; j < before; ++j) {
      column_sums[j] += row[j];
      sum += column_sums[j];
    }
    column_sums[before] += row[before];
    return sum;
  }

  // Adds the state's parts to the tiles' and writes di and df.
  void gate_gradients(std::int64_t unit, const Work& w, C ddecay, Scratch& s) const {
    double behind = 0.0;
    for (std::int64_t t = w.chunk.size - 1; t >= 0; --t) {
      behind += static_cast<double>(s.dcarried[t]);
      s.dlog_forget[t] += static_cast<C>(behind);
    }
    const GateGradients<C> gradients(args_, dims_, unit);
    double before = static_cast<double>(ddecay);
    for (std::int64_t t = 0; t < w.chunk.size; ++t) {
      gradients.write(w.chunk.begin + t, s.dlog_input[t] + s.dto_state[t],
                      s.dlog_forget[t] + static_cast<C>(before));
      before += static_cast<double>(s.dto_state[t]);
    }
  }

  const CellBackwardArgs& args_;
  Dims dims_;
  std::int64_t chunk_;
  C scale_;
};

void chunkwise_bwd(const CellBackwardArgs& args) {
  cpu::dispatch_floating("mlstm_chunkwise_bwd", args.in.q.dtype(),
                         [&]<class T>() { Backward<T>(args, args.in.chunk_size).run(); });
}

void parallel_bwd(const CellBackwardArgs& args) {
  cpu::dispatch_floating("mlstm_parallel_bwd", args.in.q.dtype(),
                         [&]<class T>() { Backward<T>(args, args.in.q.dim(1)).run(); });
}

}  // namespace

void register_cpu_chunkwise_bwd() {
  cell_bwd[static_cast<int>(Form::kChunkwise)].set(DeviceType::kCpu, chunkwise_bwd);
  cell_bwd[static_cast<int>(Form::kParallel)].set(DeviceType::kCpu, parallel_bwd);
}

}  // namespace carousel::mlstm
