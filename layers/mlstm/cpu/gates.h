// The gates of one head, turned once into stabilised factors: after this scan every form of the
// cell is plain linear attention with a decay 0 <= F̂ <= 1 and an input weight 0 <= Î <= 1 per
// token.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/base/math.h"
#include "layers/mlstm/cpu/heads.h"

namespace carousel::mlstm {

/// Rows of a chunk that are weighted together: the decay is a running product inside a tile and
/// starts from exact logarithms at its first row.
inline constexpr std::int64_t kTileRows = 32;

template <class C>
class Gates {
 public:
  Gates(Arena& arena, std::int64_t time)
      : time_(time),
        log_forget_(arena.take<C>(time)),
        log_input_(arena.take<C>(time)),
        forget_(arena.take<C>(time)),
        input_(arena.take<C>(time)),
        m_(arena.take<C>(time)) {}

  /// Reads the unit's pre-activations. The exponent of F̂ is F − (m' − m), not (F + m) − m': the
  /// difference of two neighbouring stabilisers is exact, so that the rounding of m' itself goes
  /// into F̂ and no error builds up over long sequences.
  void scan(const CellInputs& in, const Dims& dims, std::int64_t unit) {
    const Rows<C> i = rows_of<C>(in.i, dims, unit);
    const Rows<C> f = rows_of<C>(in.f, dims, unit);
    reset_ =
        in.reset.defined() ? in.reset.data<std::uint8_t>() + unit / dims.heads * time_ : nullptr;
    const C* m0 = block_of<C>(in.m0, dims, unit);
    const bool exponential = in.gate == InputGate::kExponential;
    m_initial_ = exponential && m0 != nullptr ? *m0 : C{0};
    C m = m_initial_;
    for (std::int64_t t = 0; t < time_; ++t) {
      const C log_sigmoid_f = math::log_sigmoid(*f[t]);
      if (exponential) {
        if (starts_document(t)) m = C{0};
        const C next = std::max(log_sigmoid_f + m, *i[t]);
        log_forget_[t] = log_sigmoid_f - (next - m);
        log_input_[t] = *i[t] - next;
        m = next;
      } else {
        log_forget_[t] = log_sigmoid_f;
        log_input_[t] = math::log_sigmoid(*i[t]);
      }
      m_[t] = m;
    }
#pragma omp simd
    for (std::int64_t t = 0; t < time_; ++t) {
      forget_[t] = math::exp(log_forget_[t]);
      input_[t] = math::exp(log_input_[t]);
    }
    for (std::int64_t t = 0; t < time_; ++t) {
      if (starts_document(t)) forget_[t] = C{0};
    }
  }

  /// F̂_t, exactly 0 at a reset; Î_t; m_t.
  C forget(std::int64_t t) const { return forget_[t]; }
  C input(std::int64_t t) const { return input_[t]; }
  C m(std::int64_t t) const { return m_[t]; }
  /// The stabiliser of the state before token t.
  C m_before(std::int64_t t) const { return t == 0 ? m_initial_ : m_[t - 1]; }
  bool starts_document(std::int64_t t) const { return reset_ != nullptr && reset_[t] != 0; }

  /// weights[j − begin] = Î_j·Π_{j<τ<=row} F̂_τ for begin <= j <= row: what the state after `row`
  /// holds of token j. Zero before the row's document, whose first token in the range is returned.
  /// The product is a suffix sum of logarithms in float64, rounded once.
  std::int64_t token_weights(std::int64_t begin, std::int64_t row, C* weights) const {
    double decay = 0.0;
    std::int64_t first = row;
    for (std::int64_t j = row; j >= begin; --j) {
      weights[j - begin] = static_cast<C>(static_cast<double>(log_input_[j]) + decay);
      first = j;
      if (starts_document(j)) break;
      decay += static_cast<double>(log_forget_[j]);
    }
    std::fill_n(weights, first - begin, C{0});
#pragma omp simd
    for (std::int64_t j = first - begin; j <= row - begin; ++j) weights[j] = math::exp(weights[j]);
    return first;
  }

  /// Steps weights (n + 1 of them, for the n tokens before `row` and itself) on from row − 1 to
  /// row.
  void advance_weights(std::int64_t row, std::int64_t n, C* weights) const {
    const C forget = forget_[row];
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) {
      const C w = weights[j] * forget;
      weights[j] = w < std::numeric_limits<C>::min() ? C{0} : w;  // denormals are slow
    }
    weights[n] = input_[row];
  }

  /// weights[i] = Π_{begin<=τ<=begin+i} F̂_τ for 0 <= i < n: what token begin + i sees of the state
  /// before `begin`. Returns how many tokens see it, those before the first reset; the rest is
  /// zero.
  std::int64_t carried_weights(std::int64_t begin, std::int64_t n, C* weights) const {
    double decay = 0.0;
    std::int64_t seen = 0;
    for (; seen < n && !starts_document(begin + seen); ++seen) {
      decay += static_cast<double>(log_forget_[begin + seen]);
      weights[seen] = static_cast<C>(decay);
    }
#pragma omp simd
    for (std::int64_t i = 0; i < seen; ++i) weights[i] = math::exp(weights[i]);
    std::fill_n(weights + seen, n - seen, C{0});
    return seen;
  }

 private:
  std::int64_t time_;
  C *log_forget_, *log_input_, *forget_, *input_, *m_;
  const std::uint8_t* reset_ = nullptr;
  C m_initial_{0};
};

/// Turns gradients of log F̂ and log Î into those of the pre-activations of one head.
template <class C>
class GateGradients {
 public:
  GateGradients(const CellBackwardArgs& args, const Dims& dims, std::int64_t unit)
      : exponential_(args.in.gate == InputGate::kExponential),
        i_(rows_of<C>(args.in.i, dims, unit)),
        f_(rows_of<C>(args.in.f, dims, unit)),
        di_(rows_of<C>(args.di, dims, unit)),
        df_(rows_of<C>(args.df, dims, unit)) {}

  void write(std::int64_t t, C dlog_input, C dlog_forget) const {
    if (di_) *di_[t] = exponential_ ? dlog_input : dlog_input * math::sigmoid(-*i_[t]);
    if (df_) *df_[t] = dlog_forget * math::sigmoid(-*f_[t]);
  }

 private:
  bool exponential_;
  Rows<C> i_, f_, di_, df_;
};

}  // namespace carousel::mlstm
