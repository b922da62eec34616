// Precision: statistics and all arithmetic in the accumulation dtype; rounded at each store, and
// between the normalisation and the weight.
#include "core/kernels/norm.h"

#include <cmath>
#include <vector>

#include "core/base/math.h"
#include "core/base/parallel.h"
#include "core/cpu/dispatch.h"
#include "core/cpu/kernels.h"

namespace carousel::cpu {
namespace {

// The scale of each column, in compute precision: weight, or 1 + weight.
template <class C>
std::vector<C> scales(const Tensor& weight, bool is_residual) {
  std::vector<C> w(static_cast<std::size_t>(weight.numel()));
  dispatch_floating("norm", weight.dtype(), [&]<class W>() {
    const W* source = weight.data<W>();
    for (std::size_t i = 0; i < w.size(); ++i) {
      w[i] = static_cast<C>(static_cast<compute_t<W>>(source[i])) + (is_residual ? C{1} : C{0});
    }
  });
  return w;
}

template <class C>
struct Statistics {
  C mean, rstd;
};

template <class T, class C = compute_t<T>>
Statistics<C> row_statistics(const T* x, std::int64_t n, const NormOptions& options) {
  C mean{0};
  if (options.kind == NormKind::kLayer) {
    C sum{0};
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = 0; j < n; ++j) sum += static_cast<C>(x[j]);
    mean = sum / static_cast<C>(n);
  }
  C squares{0};
#pragma omp simd reduction(+ : squares)
  for (std::int64_t j = 0; j < n; ++j) {
    const C centred = static_cast<C>(x[j]) - mean;
    squares += centred * centred;
  }
  return {mean, C{1} / std::sqrt(squares / static_cast<C>(n) + static_cast<C>(options.eps))};
}

template <class T>
void forward(const NormForwardArgs& args) {
  using C = compute_t<T>;
  const std::int64_t rows = args.x.dim(0);
  const std::int64_t n = args.x.dim(1);
  const std::vector<C> scale = scales<C>(args.weight, args.options.weight_is_residual);
  const std::int64_t groups = static_cast<std::int64_t>(scale.size()) / n;
  const T* x = args.x.data<T>();
  const T* residual = args.residual.data_or_null<T>();
  const T* gate = args.gate.data_or_null<T>();
  T* sum = args.sum.data_or_null<T>();
  T* out = args.out.data<T>();
  C* mean = args.mean.data_or_null<C>();
  C* rstd = args.rstd.data<C>();
  parallel_for(rows, kElementwiseGrain / n + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T* s = x + r * n;
      if (residual != nullptr) {
        const T* other = residual + r * n;
        T* total = sum + r * n;
#pragma omp simd
        for (std::int64_t j = 0; j < n; ++j) {
          total[j] = round_to<T>(static_cast<C>(s[j]) + static_cast<C>(other[j]));
        }
        s = total;
      }
      const Statistics<C> row = row_statistics(s, n, args.options);
      if (mean != nullptr) mean[r] = row.mean;
      rstd[r] = row.rstd;
      const C* w = scale.data() + r % groups * n;
      T* y = out + r * n;
      const auto scaled = [=](std::int64_t j) {
        const T normed = round_to<T>((static_cast<C>(s[j]) - row.mean) * row.rstd);
        return static_cast<C>(normed) * w[j];
      };
      if (gate == nullptr) {
#pragma omp simd
        for (std::int64_t j = 0; j < n; ++j) y[j] = round_to<T>(scaled(j));
      } else {
        const T* g = gate + r * n;
#pragma omp simd
        for (std::int64_t j = 0; j < n; ++j) {
          y[j] = round_to<T>(scaled(j) * math::sigmoid(static_cast<C>(g[j])));
        }
      }
    }
  });
}

// The gradient behind the norm's own product, dy = dout·σ(gate), and the gate's, one row.
template <class T, class C>
void gate_backward(const T* g, const T* dout, const T* s, const C* w, Statistics<C> row,
                   std::int64_t n, C* dy, T* dgate) {
#pragma omp simd
  for (std::int64_t j = 0; j < n; ++j) {
    const C sigma = math::sigmoid(static_cast<C>(g[j]));
    const C y = (static_cast<C>(s[j]) - row.mean) * row.rstd * w[j];
    const C d = static_cast<C>(dout[j]);
    dgate[j] = round_to<T>(d * y * sigma * (C{1} - sigma));
    dy[j] = d * sigma;
  }
}

template <class T, class C>
void row_backward(const T* s, const C* dy, const C* w, Statistics<C> row, NormKind kind,
                  std::int64_t n, const T* dsum, T* dx, C* dw) {
  C dot{0};
  C total{0};
#pragma omp simd reduction(+ : dot, total)
  for (std::int64_t j = 0; j < n; ++j) {
    const C normed = (static_cast<C>(s[j]) - row.mean) * row.rstd;
    const C dnormed = dy[j] * w[j];
    dot += normed * dnormed;
    total += dnormed;
    dw[j] += dy[j] * normed;
  }
  const C mean_dot = dot / static_cast<C>(n);
  const C mean_d = kind == NormKind::kLayer ? total / static_cast<C>(n) : C{0};
#pragma omp simd
  for (std::int64_t j = 0; j < n; ++j) {
    const C normed = (static_cast<C>(s[j]) - row.mean) * row.rstd;
    const C extra = dsum != nullptr ? static_cast<C>(dsum[j]) : C{0};
    dx[j] = round_to<T>(row.rstd * (dy[j] * w[j] - mean_d - normed * mean_dot) + extra);
  }
}

template <class T>
void backward(const NormBackwardArgs& args) {
  using C = compute_t<T>;
  const std::int64_t rows = args.x.dim(0);
  const std::int64_t n = args.x.dim(1);
  const std::vector<C> scale = scales<C>(args.weight, args.options.weight_is_residual);
  const std::int64_t groups = static_cast<std::int64_t>(scale.size()) / n;
  const T* x = args.x.data<T>();
  const T* gate = args.gate.data_or_null<T>();
  const T* dout = args.dout.data<T>();
  const T* dsum = args.dsum.data_or_null<T>();
  const C* mean = args.mean.data_or_null<C>();
  const C* rstd = args.rstd.data<C>();
  T* dx = args.dx.data<T>();
  T* dgate = args.dgate.data_or_null<T>();
  // One partial weight gradient a block of rows, added up in order: repeatable for a given number
  // of threads.
  const std::int64_t blocks =
      std::min<std::int64_t>(num_threads(), rows * n / kElementwiseGrain + 1);
  std::vector<std::vector<C>> partial(static_cast<std::size_t>(blocks));
  parallel_for(blocks, 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<C> dy(static_cast<std::size_t>(n));
    for (std::int64_t b = first; b < last; ++b) {
      std::vector<C>& dw = partial[static_cast<std::size_t>(b)];
      dw.assign(scale.size(), C{0});
      for (std::int64_t r = rows * b / blocks; r < rows * (b + 1) / blocks; ++r) {
        const Statistics<C> row{mean != nullptr ? mean[r] : C{0}, rstd[r]};
        const std::int64_t column = r % groups * n;
        const C* w = scale.data() + column;
        const T* d = dout + r * n;
        if (gate != nullptr) {
          gate_backward(gate + r * n, d, x + r * n, w, row, n, dy.data(), dgate + r * n);
        } else {
#pragma omp simd
          for (std::int64_t j = 0; j < n; ++j)
            dy[static_cast<std::size_t>(j)] = static_cast<C>(d[j]);
        }
        row_backward(x + r * n, dy.data(), w, row, args.options.kind, n,
                     dsum != nullptr ? dsum + r * n : nullptr, dx + r * n, dw.data() + column);
      }
    }
  });
  if (!args.dweight.defined()) return;
  C* dweight = args.dweight.data<C>();
  for (const std::vector<C>& dw : partial) {
#pragma omp simd
    for (std::size_t j = 0; j < dw.size(); ++j) dweight[j] += dw[j];
  }
}

}  // namespace

void register_norm() {
  norm_fwd.set(DeviceType::kCpu, [](const NormForwardArgs& args) {
    dispatch_floating("norm_fwd", args.x.dtype(), [&]<class T>() { forward<T>(args); });
  });
  norm_bwd.set(DeviceType::kCpu, [](const NormBackwardArgs& args) {
    dispatch_floating("norm_bwd", args.x.dtype(), [&]<class T>() { backward<T>(args); });
  });
}

}  // namespace carousel::cpu
