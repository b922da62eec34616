// Precision: products and sums in compute_t<T>, one rounding at each store; weight gradients in
// compute_t<T>. Blocks of 4×4, the common ones, have a loop of their own; all others are small
// matrix products on strided columns, before which bf16 operands are widened.
#include "core/kernels/headwise.h"

#include <cstring>
#include <vector>

#include "core/base/parallel.h"
#include "core/cpu/blas.h"
#include "core/cpu/dispatch.h"
#include "core/cpu/kernels.h"
#include "core/kernels/elementwise.h"

namespace carousel::cpu {
namespace {

constexpr std::int64_t kBlock = 4;

// A tensor in compute precision: itself, or a widened copy.
template <class C>
Tensor in_compute(const Tensor& t) {
  if (t.dtype() == dtype_of<C>) return t;
  const RoleScope role(Role::kWorkspace);
  Tensor wide = Tensor::empty(t.shape(), dtype_of<C>);
  cast(kCpu, {t, wide});
  return wide;
}

// out[r, 4h+o] = Σ_d blocks[h,d,o]·x[r, 4h+d].
template <class T, class C>
void apply_blocks(const T* x, const C* blocks, std::int64_t rows, std::int64_t heads, T* out) {
  const std::int64_t width = heads * kBlock;
  parallel_for(rows, kElementwiseGrain / width + 1, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const T* in = x + r * width + h * kBlock;
        const C* block = blocks + h * kBlock * kBlock;
        C sum[kBlock] = {};
        for (std::int64_t d = 0; d < kBlock; ++d) {
          for (std::int64_t o = 0; o < kBlock; ++o) {
            sum[o] += static_cast<C>(in[d]) * block[d * kBlock + o];
          }
        }
        for (std::int64_t o = 0; o < kBlock; ++o)
          out[r * width + h * kBlock + o] = round_to<T>(sum[o]);
      }
    }
  });
}

// weight (H,4,4) with the last two dimensions exchanged.
template <class C>
std::vector<C> transposed_blocks(const C* weight, std::int64_t heads) {
  std::vector<C> out(static_cast<std::size_t>(heads * kBlock * kBlock));
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t o = 0; o < kBlock; ++o) {
      for (std::int64_t d = 0; d < kBlock; ++d) {
        out[static_cast<std::size_t>((h * kBlock + d) * kBlock + o)] =
            weight[(h * kBlock + o) * kBlock + d];
      }
    }
  }
  return out;
}

// dweight[h,o,d] += Σ_r dy[r,4h+o]·x[r,4h+d]. Each head has one owner; rows are summed in blocks,
// so that long sums lose little.
template <class T, class C>
void accumulate_blocks(const T* x, const T* dy, std::int64_t rows, std::int64_t heads, C* dweight) {
  constexpr std::int64_t kRows = 256;
  constexpr std::int64_t kSize = kBlock * kBlock;
  const std::int64_t width = heads * kBlock;
  parallel_for(heads, kElementwiseGrain / (rows * kSize + 1) + 4,
               [=](std::int64_t begin, std::int64_t end) {
                 std::vector<C> part(static_cast<std::size_t>((end - begin) * kSize));
                 for (std::int64_t first = 0; first < rows; first += kRows) {
                   std::fill(part.begin(), part.end(), C{0});
                   for (std::int64_t r = first; r < std::min(rows, first + kRows); ++r) {
                     for (std::int64_t h = begin; h < end; ++h) {
                       const T* in = x + r * width + h * kBlock;
                       const T* out = dy + r * width + h * kBlock;
                       C* sum = part.data() + (h - begin) * kSize;
                       for (std::int64_t o = 0; o < kBlock; ++o) {
                         for (std::int64_t d = 0; d < kBlock; ++d) {
                           sum[o * kBlock + d] += static_cast<C>(out[o]) * static_cast<C>(in[d]);
                         }
                       }
                     }
                   }
                   C* to = dweight + begin * kSize;
#pragma omp simd
                   for (std::int64_t e = 0; e < (end - begin) * kSize; ++e) {
                     to[e] += part[static_cast<std::size_t>(e)];
                   }
                 }
               });
}

// out (R, H·n) = per head x (R, H·k)·weight[h], or its transpose: blocks of rows in parallel.
template <class C>
void multiply_heads(const Tensor& x, const Tensor& weight, bool transpose, const Tensor& out) {
  constexpr std::int64_t kRows = 128;
  const std::int64_t rows = x.dim(0);
  const std::int64_t heads = weight.dim(0);
  const std::int64_t k = x.dim(1) / heads;
  const std::int64_t n = out.dim(1) / heads;
  const std::int64_t row_blocks = (rows + kRows - 1) / kRows;
  const std::int64_t grain = kElementwiseGrain / (std::min(kRows, rows) * k * n) + 1;
  parallel_for(heads * row_blocks, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t h = unit / row_blocks;
      const std::int64_t r = unit % row_blocks * kRows;
      gemm(false, transpose, std::min(kRows, rows - r), n, k, C{1},
           x.data<C>() + r * heads * k + h * k, heads * k, weight.data<C>() + h * k * n,
           transpose ? k : n, C{0}, out.data<C>() + r * heads * n + h * n, heads * n);
    }
  });
}

// dweight[h] += dy_hᵀ·x_h. Few heads: one after the other with all threads; many: side by side.
template <class C>
void accumulate_heads(const Tensor& x, const Tensor& dy, const Tensor& dweight) {
  const std::int64_t heads = dweight.dim(0);
  const std::int64_t out = dweight.dim(1);
  const std::int64_t in = dweight.dim(2);
  const auto range = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t h = begin; h < end; ++h) {
      gemm(true, false, out, in, x.dim(0), C{1}, dy.data<C>() + h * out, heads * out,
           x.data<C>() + h * in, heads * in, C{1}, dweight.data<C>() + h * out * in, in);
    }
  };
  if (heads < num_threads()) {
    range(0, heads);
  } else {
    parallel_for(heads, kElementwiseGrain / (x.dim(0) * out * in) + 1, range);
  }
}

template <class T>
void forward(const HeadwiseForwardArgs& args) {
  using C = compute_t<T>;
  const std::int64_t heads = args.weight.dim(0);
  const Tensor weight = in_compute<C>(args.weight);
  if (args.weight.dim(1) == kBlock && args.weight.dim(2) == kBlock) {
    const std::vector<C> blocks = transposed_blocks(weight.data<C>(), heads);
    return apply_blocks(args.x.data<T>(), blocks.data(), args.x.dim(0), heads, args.y.data<T>());
  }
  const bool narrow = args.y.dtype() != dtype_of<C>;
  const RoleScope role(Role::kWorkspace);
  const Tensor y = narrow ? Tensor::empty(args.y.shape(), dtype_of<C>) : args.y;
  multiply_heads<C>(in_compute<C>(args.x), weight, true, y);
  if (narrow) cast(kCpu, {y, args.y});
}

template <class T>
void backward(const HeadwiseBackwardArgs& args) {
  using C = compute_t<T>;
  const std::int64_t heads = args.weight.dim(0);
  if (args.weight.dim(1) == kBlock && args.weight.dim(2) == kBlock) {
    const std::int64_t rows = args.x.dim(0);
    const T* dy = args.dy.data<T>();
    if (args.dx.defined()) {
      const Tensor weight = in_compute<C>(args.weight);
      apply_blocks(dy, weight.data<C>(), rows, heads, args.dx.data<T>());
    }
    if (args.dweight.defined()) {
      accumulate_blocks(args.x.data<T>(), dy, rows, heads, args.dweight.data<C>());
    }
    return;
  }
  const RoleScope role(Role::kWorkspace);
  const Tensor dy = in_compute<C>(args.dy);
  if (args.dx.defined()) {
    const bool narrow = args.dx.dtype() != dtype_of<C>;
    const Tensor dx = narrow ? Tensor::empty(args.dx.shape(), dtype_of<C>) : args.dx;
    multiply_heads<C>(dy, in_compute<C>(args.weight), false, dx);
    if (narrow) cast(kCpu, {dx, args.dx});
  }
  if (args.dweight.defined()) accumulate_heads<C>(in_compute<C>(args.x), dy, args.dweight);
}

void copy_columns_kernel(const CopyColumnsArgs& args) {
  const std::size_t element = size_of(args.x.dtype());
  const auto offset = [element](std::int64_t n) { return static_cast<std::size_t>(n) * element; };
  const auto* x = static_cast<const std::byte*>(args.x.raw()) + offset(args.x_column);
  auto* out = static_cast<std::byte*>(args.out.raw()) + offset(args.out_column);
  const std::size_t x_row = offset(args.x.dim(1));
  const std::size_t out_row = offset(args.out.dim(1));
  const std::int64_t grain = kElementwiseGrain / std::max<std::int64_t>(args.columns, 1) + 1;
  parallel_for(args.x.dim(0), grain, [&](std::int64_t begin, std::int64_t end) {
    for (auto r = static_cast<std::size_t>(begin); r < static_cast<std::size_t>(end); ++r) {
      std::memcpy(out + r * out_row, x + r * x_row, offset(args.columns));
    }
  });
}

void skip_forward(const SkipForwardArgs& args) {
  dispatch_floating("skip_fwd", args.a.dtype(), [&]<class T>() {
    using C = compute_t<T>;
    const std::int64_t n = args.a.dim(1);
    const Tensor scale_tensor = in_compute<C>(args.scale);
    const C* scale = scale_tensor.data<C>();
    parallel_for(args.a.dim(0), kElementwiseGrain / n + 1,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t r = begin; r < end; ++r) {
                     const T* a = args.a.data<T>() + r * n;
                     const T* b = args.b.data<T>() + r * n;
                     T* y = args.y.data<T>() + r * n;
#pragma omp simd
                     for (std::int64_t d = 0; d < n; ++d) {
                       y[d] = round_to<T>(static_cast<C>(a[d]) * scale[d] + static_cast<C>(b[d]));
                     }
                   }
                 });
  });
}

// Columns are split over threads, so that each sum has one owner and one order.
void skip_backward(const SkipBackwardArgs& args) {
  dispatch_floating("skip_bwd", args.a.dtype(), [&]<class T>() {
    using C = compute_t<T>;
    const std::int64_t rows = args.a.dim(0);
    const std::int64_t n = args.a.dim(1);
    const Tensor scale_tensor = in_compute<C>(args.scale);
    const C* scale = scale_tensor.data<C>();
    parallel_for(n, kElementwiseGrain / (rows + 1) + 32, [&](std::int64_t begin, std::int64_t end) {
      std::vector<C> sum(static_cast<std::size_t>(end - begin), C{0});
      C* dscale = sum.data();
      for (std::int64_t r = 0; r < rows; ++r) {
        const T* a = args.a.data<T>() + r * n + begin;
        const T* dy = args.dy.data<T>() + r * n + begin;
        T* da = args.da.data<T>() + r * n + begin;
#pragma omp simd
        for (std::int64_t d = 0; d < end - begin; ++d) {
          const C g = static_cast<C>(dy[d]);
          dscale[d] += g * static_cast<C>(a[d]);
          da[d] = round_to<T>(g * scale[begin + d]);
        }
      }
      if (!args.dscale.defined()) return;
      for (std::int64_t d = begin; d < end; ++d) args.dscale.data<C>()[d] += dscale[d - begin];
    });
  });
}

void add_bias(const AddBiasArgs& args) {
  dispatch_floating("add_bias_fwd", args.x.dtype(), [&]<class T>() {
    using C = compute_t<T>;
    const std::int64_t n = args.x.dim(1);
    const Tensor bias_tensor = in_compute<C>(args.bias);
    const C* bias = bias_tensor.data<C>();
    parallel_for(args.x.dim(0), kElementwiseGrain / n + 1,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t r = begin; r < end; ++r) {
                     const T* x = args.x.data<T>() + r * n;
                     T* y = args.y.data<T>() + r * n;
#pragma omp simd
                     for (std::int64_t d = 0; d < n; ++d) {
                       y[d] = round_to<T>(static_cast<C>(x[d]) + bias[d]);
                     }
                   }
                 });
  });
}

}  // namespace

void register_headwise() {
  headwise_fwd.set(DeviceType::kCpu, [](const HeadwiseForwardArgs& args) {
    dispatch_floating("headwise_fwd", args.x.dtype(), [&]<class T>() { forward<T>(args); });
  });
  headwise_bwd.set(DeviceType::kCpu, [](const HeadwiseBackwardArgs& args) {
    dispatch_floating("headwise_bwd", args.x.dtype(), [&]<class T>() { backward<T>(args); });
  });
  copy_columns.set(DeviceType::kCpu, copy_columns_kernel);
  skip_fwd.set(DeviceType::kCpu, skip_forward);
  skip_bwd.set(DeviceType::kCpu, skip_backward);
  add_bias_fwd.set(DeviceType::kCpu, add_bias);
}

}  // namespace carousel::cpu
