// The recurrent form: a scan over time, in both directions. Generation calls the forward with one
// token; it then is a single pass over C.
//
// Backward: with dC_t the gradient of C_t through h_t and all later tokens, d̂H = dh/N, and Δ the
// gradient of the denominator,
//   dC_t = F̂_{t+1}·dC_{t+1} + s·q d̂Hᵀ          dn_t = F̂_{t+1}·dn_{t+1} + s·q Δ
//   dq = s·(C_t d̂H + Δ·n_t)   dk = Î(dC_t v + dn_t)   dv = Î·dC_tᵀk
//   d log Î = k·dk            d log F̂ = F̂(⟨dC_t, C_{t−1}⟩ + ⟨dn_t, n_{t−1}⟩)
// The states C_t are recomputed block by block, √S tokens each, from the states between blocks, so
// that memory grows with √S.
//
// Precision: states, sums and gradients in float32 for bf16; outputs are rounded once.
#include <algorithm>
#include <cmath>

#include "core/cpu/dispatch.h"
#include "layers/mlstm/cpu/gates.h"
#include "layers/mlstm/cpu/heads.h"
#include "layers/mlstm/cpu/kernels.h"
#include "layers/mlstm/cpu/normaliser.h"
#include "layers/mlstm/kernels.h"

namespace carousel::mlstm {
namespace {

/// The state of one head, C (dqk × dv) and n (dqk).
template <class C>
struct HeadState {
  C *c, *n;
};

/// What both directions read of one head, token by token, in compute precision.
template <class T>
class Tokens {
  using C = cpu::compute_t<T>;

 public:
  struct Token {
    const C *q, *k, *v;
    C forget, input;
  };

  Tokens(Arena& arena, const Dims& dims)
      : gates(arena, dims.time),
        dims_(dims),
        q_scratch_(arena.take<C>(dims.dqk)),
        k_scratch_(arena.take<C>(dims.dqk)),
        v_scratch_(arena.take<C>(dims.dv)) {}

  void open(const CellInputs& in, std::int64_t unit) {
    gates.scan(in, dims_, unit);
    q_ = rows_of<T>(in.q, dims_, unit);
    k_ = rows_of<T>(in.k, dims_, unit);
    v_ = rows_of<T>(in.v, dims_, unit);
  }

  /// Token t; for bf16 valid until the next call.
  Token read(std::int64_t t) const {
    return {widened(q_.from(t), 1, dims_.dqk, q_scratch_).data,
            widened(k_.from(t), 1, dims_.dqk, k_scratch_).data,
            widened(v_.from(t), 1, dims_.dv, v_scratch_).data, gates.forget(t), gates.input(t)};
  }

  Gates<C> gates;

 private:
  Dims dims_;
  C *q_scratch_, *k_scratch_, *v_scratch_;
  Rows<T> q_, k_, v_;
};

template <class C>
C score_scale(const Dims& dims) {
  return static_cast<C>(1.0 / std::sqrt(static_cast<double>(dims.dqk)));
}

template <class T>
class Forward {
  using C = cpu::compute_t<T>;

 public:
  explicit Forward(const CellForwardArgs& args) : args_(args), dims_(dims_of(args.in)) {}

  void run() const {
    Arena sizes;
    const Scratch measured(sizes, dims_);
    for_each_head(dims_, dims_.time * dims_.dqk * dims_.dv, sizes.used(),
                  [this](std::int64_t unit, Arena arena) {
                    Scratch scratch(arena, dims_);
                    run_head(unit, scratch);
                  });
  }

 private:
  struct Scratch {
    Scratch(Arena& arena, const Dims& dims)
        : tokens(arena, dims),
          numerator(arena.take<C>(dims.dv)),
          state{arena.take<C>(dims.dqk * dims.dv), arena.take<C>(dims.dqk)} {}

    Tokens<T> tokens;
    C* numerator;
    HeadState<C> state;  // where no output holds it
  };

  void run_head(std::int64_t unit, Scratch& s) const {
    s.tokens.open(args_.in, unit);
    HeadState<C> to{block_of<C>(args_.c_last, dims_, unit), block_of<C>(args_.n_last, dims_, unit)};
    if (to.c == nullptr) to.c = s.state.c;
    if (to.n == nullptr) to.n = s.state.n;
    HeadState<C> from{block_of<C>(args_.in.c0, dims_, unit), block_of<C>(args_.in.n0, dims_, unit)};
    if (from.c == nullptr) {
      std::fill_n(to.c, dims_.dqk * dims_.dv, C{0});
      std::fill_n(to.n, dims_.dqk, C{0});
      from = to;
    }
    const Rows<T> h = rows_of<T>(args_.h, dims_, unit);
    const Rows<C> normaliser = rows_of<C>(args_.normaliser, dims_, unit);
    const Rows<C> sign = rows_of<C>(args_.denominator_sign, dims_, unit);
    const Rows<C> stabiliser = rows_of<C>(args_.stabiliser, dims_, unit);
    for (std::int64_t t = 0; t < dims_.time; ++t) {
      const C m = s.tokens.gates.m(t);
      const C denominator = step(s.tokens.read(t), from, to, s.numerator);
      const Normaliser<C> norm(denominator, m, static_cast<C>(args_.in.eps));
      const C inverse = C{1} / norm.value;
      T* out = h[t];
#pragma omp simd
      for (std::int64_t y = 0; y < dims_.dv; ++y)
        out[y] = cpu::round_to<T>(s.numerator[y] * inverse);
      if (normaliser) *normaliser[t] = norm.value;
      if (sign) *sign[t] = norm.sign;
      if (stabiliser) *stabiliser[t] = m;
      from = to;
    }
    if (C* m_last = block_of<C>(args_.m_last, dims_, unit)) {
      *m_last = s.tokens.gates.m(dims_.time - 1);
    }
  }

  // Steps the state, perhaps in place, and reads it with q in the same pass: writes the numerator
  // s·qᵀC' and returns the denominator s·qᵀn'.
  C step(const typename Tokens<T>::Token& token, HeadState<C> from, HeadState<C> to,
         C* numerator) const {
    const C scale = score_scale<C>(dims_);
    const C forget = token.forget;
    const C* v = token.v;
    C denominator{0};
    std::fill_n(numerator, dims_.dv, C{0});
    for (std::int64_t x = 0; x < dims_.dqk; ++x) {
      const C ik = token.input * token.k[x];
      const C sq = scale * token.q[x];
      to.n[x] = forget * from.n[x] + ik;
      denominator += sq * to.n[x];
      const C* from_row = from.c + x * dims_.dv;
      C* to_row = to.c + x * dims_.dv;
#pragma omp simd
      for (std::int64_t y = 0; y < dims_.dv; ++y) {
        const C c = forget * from_row[y] + ik * v[y];
        to_row[y] = c;
        numerator[y] += sq * c;
      }
    }
    return denominator;
  }

  const CellForwardArgs& args_;
  Dims dims_;
};

template <class T>
class Backward {
  using C = cpu::compute_t<T>;

 public:
  explicit Backward(const CellBackwardArgs& args)
      : args_(args),
        dims_(dims_of(args.in)),
        block_(static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(dims_.time))))) {}

  void run() const {
    Arena sizes;
    const Scratch measured(sizes, *this);
    for_each_head(dims_, 4 * dims_.time * dims_.dqk * dims_.dv, sizes.used(),
                  [this](std::int64_t unit, Arena arena) {
                    Scratch scratch(arena, *this);
                    run_head(unit, scratch);
                  });
  }

 private:
  struct Scratch {
    Scratch(Arena& arena, const Backward& b)
        : tokens(arena, b.dims_),
          between(b.take_states(arena, b.blocks())),
          inside(b.take_states(arena, b.block_ + 1)),
          gradient(b.take_states(arena, 1)),
          dnumerator(arena.take<C>(b.dims_.dv)),
          dv(arena.take<C>(b.dims_.dv)) {}

    Tokens<T> tokens;
    HeadState<C> between;   // the state before each block
    HeadState<C> inside;    // the states before and after each token of one block
    HeadState<C> gradient;  // dC, dn
    C *dnumerator, *dv;
  };

  std::int64_t c_size() const { return dims_.dqk * dims_.dv; }
  std::int64_t blocks() const { return (dims_.time + block_ - 1) / block_; }
  HeadState<C> take_states(Arena& arena, std::int64_t count) const {
    return {arena.take<C>(count * c_size()), arena.take<C>(count * dims_.dqk)};
  }
  HeadState<C> at(HeadState<C> states, std::int64_t index) const {
    return {states.c + index * c_size(), states.n + index * dims_.dqk};
  }
  void copy_state(const C* c, const C* n, HeadState<C> to) const {
    copy_or_zero(c, c_size(), to.c);
    copy_or_zero(n, dims_.dqk, to.n);
  }

  void run_head(std::int64_t unit, Scratch& s) const {
    s.tokens.open(args_.in, unit);
    copy_state(block_of<C>(args_.in.c0, dims_, unit), block_of<C>(args_.in.n0, dims_, unit),
               s.between);
    for (std::int64_t block = 0; block + 1 < blocks(); ++block) {
      HeadState<C> from = at(s.between, block);
      const HeadState<C> to = at(s.between, block + 1);
      for (std::int64_t t = block * block_; t < (block + 1) * block_; ++t) {
        step(s.tokens.read(t), from, to);
        from = to;
      }
    }
    copy_state(block_of<C>(args_.dc_last, dims_, unit), block_of<C>(args_.dn_last, dims_, unit),
               s.gradient);
    for (std::int64_t block = blocks() - 1; block >= 0; --block) {
      const std::int64_t begin = block * block_;
      const std::int64_t end = std::min(begin + block_, dims_.time);
      const HeadState<C> before = at(s.between, block);
      copy_state(before.c, before.n, s.inside);
      for (std::int64_t t = begin; t < end; ++t) {
        step(s.tokens.read(t), at(s.inside, t - begin), at(s.inside, t - begin + 1));
      }
      for (std::int64_t t = end - 1; t >= begin; --t) {
        run_token(unit, t, at(s.inside, t - begin), at(s.inside, t - begin + 1), s);
      }
    }
    if (C* dc0 = block_of<C>(args_.dc0, dims_, unit)) std::copy_n(s.gradient.c, c_size(), dc0);
    if (C* dn0 = block_of<C>(args_.dn0, dims_, unit)) std::copy_n(s.gradient.n, dims_.dqk, dn0);
  }

  // The state after a token from the state before it, perhaps in place.
  void step(const typename Tokens<T>::Token& token, HeadState<C> from, HeadState<C> to) const {
    const C forget = token.forget;
    const C* v = token.v;
    for (std::int64_t x = 0; x < dims_.dqk; ++x) {
      const C ik = token.input * token.k[x];
      to.n[x] = forget * from.n[x] + ik;
      const C* from_row = from.c + x * dims_.dv;
      C* to_row = to.c + x * dims_.dv;
#pragma omp simd
      for (std::int64_t y = 0; y < dims_.dv; ++y) {
        to_row[y] = forget * from_row[y] + ik * v[y];
      }
    }
  }

  // All gradients of token t, given the states before and after it; takes (dC, dn) from behind the
  // token to before it.
  void run_token(std::int64_t unit, std::int64_t t, HeadState<C> before, HeadState<C> after,
                 Scratch& s) const {
    const auto token = s.tokens.read(t);
    const C delta =
        split_gradient(rows_of<T>(args_.dh, dims_, unit)[t], rows_of<T>(args_.h, dims_, unit)[t],
                       dims_.dv, *rows_of<C>(args_.normaliser, dims_, unit)[t],
                       *rows_of<C>(args_.denominator_sign, dims_, unit)[t], s.dnumerator);
    const C scale = score_scale<C>(dims_);
    const Rows<T> dq = rows_of<T>(args_.dq, dims_, unit);
    const Rows<T> dk = rows_of<T>(args_.dk, dims_, unit);
    C dlog_input{0};
    C dforget{0};
    std::fill_n(s.dv, dims_.dv, C{0});
    for (std::int64_t x = 0; x < dims_.dqk; ++x) {
      const C sq = scale * token.q[x];
      C& dn = s.gradient.n[x];
      dn += sq * delta;
      const std::int64_t row = x * dims_.dv;
      const RowSums sums = run_row(token, sq, token.input * token.k[x], before.c + row,
                                   after.c + row, s.gradient.c + row, s);
      const C dk_x = token.input * (sums.value + dn);
      dlog_input += token.k[x] * dk_x;
      dforget += sums.decay + dn * before.n[x];
      dn *= token.forget;
      if (dq) dq[t][x] = static_cast<T>(scale * (sums.query + delta * after.n[x]));
      if (dk) dk[t][x] = static_cast<T>(dk_x);
    }
    if (const Rows<T> dv = rows_of<T>(args_.dv, dims_, unit)) {
      T* out = dv[t];
#pragma omp simd
      for (std::int64_t y = 0; y < dims_.dv; ++y) out[y] = cpu::round_to<T>(s.dv[y]);
    }
    GateGradients<C>(args_, dims_, unit).write(t, dlog_input, token.forget * dforget);
  }

  struct RowSums {
    C query, value, decay;  // C_t·d̂H, dC_t·v and dC_t·C_{t−1} along one row
  };

  // One row of dC: adds the token's own part, takes the sums, adds its part of dv and decays it.
  RowSums run_row(const typename Tokens<T>::Token& token, C sq, C ik, const C* before,
                  const C* after, C* dc, const Scratch& s) const {
    const C* v = token.v;
    const C* dnumerator = s.dnumerator;
    const C forget = token.forget;
    C* dv = s.dv;
    C query{0};
    C value{0};
    C decay{0};
#pragma omp simd reduction(+ : query, value, decay)
    for (std::int64_t y = 0; y < dims_.dv; ++y) {
      const C gradient = dc[y] + sq * dnumerator[y];
      query += after[y] * dnumerator[y];
      value += gradient * v[y];
      decay += gradient * before[y];
      dv[y] += ik * gradient;
      dc[y] = forget * gradient;
    }
    return {query, value, decay};
  }

  const CellBackwardArgs& args_;
  Dims dims_;
  std::int64_t block_;
};

void recurrent_fwd(const CellForwardArgs& args) {
  cpu::dispatch_floating("mlstm_recurrent_fwd", args.in.q.dtype(),
                         [&]<class T>() { Forward<T>(args).run(); });
}

void recurrent_bwd(const CellBackwardArgs& args) {
  cpu::dispatch_floating("mlstm_recurrent_bwd", args.in.q.dtype(),
                         [&]<class T>() { Backward<T>(args).run(); });
}

}  // namespace

void register_cpu_recurrent() {
  cell_fwd[static_cast<int>(Form::kRecurrent)].set(DeviceType::kCpu, recurrent_fwd);
  cell_bwd[static_cast<int>(Form::kRecurrent)].set(DeviceType::kCpu, recurrent_bwd);
}

}  // namespace carousel::mlstm
