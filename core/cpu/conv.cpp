// Precision: one rounding at each store; pre, sums over taps and weight gradients in compute_t<T>.
#include "core/kernels/conv.h"

#include <algorithm>
#include <vector>

#include "core/base/math.h"
#include "core/base/parallel.h"
#include "core/cpu/dispatch.h"
#include "core/cpu/kernels.h"

namespace carousel::cpu {
namespace {

// weight (C,K) as (K,C) in compute precision, so that a tap is one vector over channels.
template <class C>
std::vector<C> taps_of(const Tensor& weight) {
  const std::int64_t channels = weight.dim(0);
  const std::int64_t width = weight.dim(1);
  std::vector<C> taps(static_cast<std::size_t>(weight.numel()));
  dispatch_floating("conv_silu", weight.dtype(), [&]<class W>() {
    const W* w = weight.data<W>();
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t j = 0; j < width; ++j) {
        taps[static_cast<std::size_t>(j * channels + c)] =
            static_cast<C>(static_cast<compute_t<W>>(w[c * width + j]));
      }
    }
  });
  return taps;
}

// bias (C) in compute precision, zeros if there is none.
template <class C>
std::vector<C> bias_of(const Tensor& bias, std::int64_t channels) {
  std::vector<C> b(static_cast<std::size_t>(channels), C{0});
  if (!bias.defined()) return b;
  dispatch_floating("conv_silu", bias.dtype(), [&]<class W>() {
    for (std::int64_t c = 0; c < channels; ++c) {
      b[static_cast<std::size_t>(c)] = static_cast<C>(static_cast<compute_t<W>>(bias.data<W>()[c]));
    }
  });
  return b;
}

// Where the taps of a token read. Times before 0 lie in the window.
template <class T>
class Inputs {
 public:
  Inputs(const Tensor& x, std::int64_t width, const Tensor& reset, const Tensor& window)
      : time_(x.dim(1)),
        channels_(x.dim(2)),
        width_(width),
        x_(x.data<T>()),
        window_(window.data_or_null<T>()),
        reset_(reset.data_or_null<std::uint8_t>()) {}

  /// The earliest input that the token at time t sees: not beyond its filter, its document's start
  /// or what is known.
  std::int64_t first(std::int64_t b, std::int64_t t) const {
    const std::int64_t reach = std::max(t - width_ + 1, window_ == nullptr ? 0 : 1 - width_);
    if (reset_ == nullptr) return reach;
    std::int64_t s = t;
    while (s > reach && (s < 0 || reset_[b * time_ + s] == 0)) --s;
    return s;
  }
  /// Channels of the input at time s.
  const T* row(std::int64_t b, std::int64_t s) const {
    return s >= 0 ? x_ + (b * time_ + s) * channels_
                  : window_ + (b * (width_ - 1) + s + width_ - 1) * channels_;
  }

 private:
  std::int64_t time_, channels_, width_;
  const T* x_;
  const T* window_;
  const std::uint8_t* reset_;
};

// pre[c] = bias[c] + Σ taps of the token at time t, for channels [begin, end).
template <class T, class C>
void convolve(const Inputs<T>& in, const std::vector<C>& taps, const std::vector<C>& bias,
              std::int64_t b, std::int64_t t, std::int64_t begin, std::int64_t end, C* pre) {
  const auto channels = static_cast<std::int64_t>(bias.size());
  const std::int64_t width = static_cast<std::int64_t>(taps.size()) / channels;
  std::copy(bias.data() + begin, bias.data() + end, pre);
  for (std::int64_t s = in.first(b, t); s <= t; ++s) {
    const C* w = taps.data() + (s - t + width - 1) * channels + begin;
    const T* x = in.row(b, s) + begin;
#pragma omp simd
    for (std::int64_t c = 0; c < end - begin; ++c) pre[c] += w[c] * static_cast<C>(x[c]);
  }
}

template <class T>
void write_window(const ConvForwardArgs& args, const Inputs<T>& in) {
  const std::int64_t time = args.x.dim(1);
  const std::int64_t channels = args.x.dim(2);
  const std::int64_t rows = args.window_last.dim(1);
  for (std::int64_t b = 0; b < args.x.dim(0); ++b) {
    // What a token at time S would see, were it in the last token's document.
    const std::int64_t first = std::max(in.first(b, time - 1), time - rows);
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t s = time - rows + i;
      T* to = args.window_last.data<T>() + (b * rows + i) * channels;
      if (s >= first) {
        std::copy_n(in.row(b, s), channels, to);
      } else {
        std::fill_n(to, channels, T{});
      }
    }
  }
}

void forward(const ConvForwardArgs& args) {
  dispatch_floating("conv_silu_fwd", args.x.dtype(), [&]<class T>() {
    using C = compute_t<T>;
    const std::int64_t time = args.x.dim(1);
    const std::int64_t channels = args.x.dim(2);
    const std::vector<C> taps = taps_of<C>(args.weight);
    const std::vector<C> bias = bias_of<C>(args.bias, channels);
    const Inputs<T> in(args.x, args.weight.dim(1), args.reset, args.window);
    parallel_for(args.x.dim(0) * time, kElementwiseGrain / channels + 1,
                 [&](std::int64_t begin, std::int64_t end) {
                   std::vector<C> buffer(static_cast<std::size_t>(channels));
                   C* pre = buffer.data();
                   for (std::int64_t row = begin; row < end; ++row) {
                     convolve(in, taps, bias, row / time, row % time, 0, channels, pre);
                     T* y = args.y.data<T>() + row * channels;
#pragma omp simd
                     for (std::int64_t c = 0; c < channels; ++c) {
                       y[c] = round_to<T>(pre[c] * math::sigmoid(pre[c]));
                     }
                   }
                 });
    if (args.window_last.defined()) write_window(args, in);
  });
}

// The backward of channels [begin, end): every sum over tokens has one owner and one order.
template <class T>
class ChannelsBackward {
  using C = compute_t<T>;

 public:
  ChannelsBackward(const ConvBackwardArgs& args, const Inputs<T>& in, const std::vector<C>& taps,
                   const std::vector<C>& bias, std::int64_t begin, std::int64_t end)
      : args_(args),
        in_(in),
        taps_(taps),
        bias_(bias),
        begin_(begin),
        n_(end - begin),
        width_(args.weight.dim(1)),
        pre_(buffer(1)),
        dpre_(buffer(1)),
        dx_(buffer(width_)),
        dtaps_(buffer(width_)),
        dbias_(buffer(1)) {}

  void run() {
    const std::int64_t time = args_.x.dim(1);
    for (std::int64_t b = 0; b < args_.x.dim(0); ++b) {
      std::fill(dx_.begin(), dx_.end(), C{0});
      for (std::int64_t t = 0; t < time; ++t) {
        token(b, t);
        if (t >= width_ - 1) finish_dx(b, t - width_ + 1);
      }
      for (std::int64_t s = std::max<std::int64_t>(0, time - width_ + 1); s < time; ++s) {
        finish_dx(b, s);
      }
    }
    add_weight_gradients();
  }

 private:
  std::vector<C> buffer(std::int64_t rows) const {
    return std::vector<C>(static_cast<std::size_t>(rows * n_), C{0});
  }

  void token(std::int64_t b, std::int64_t t) {
    const std::int64_t channels = args_.x.dim(2);
    convolve(in_, taps_, bias_, b, t, begin_, begin_ + n_, pre_.data());
    const T* dy = args_.dy.data<T>() + (b * args_.x.dim(1) + t) * channels + begin_;
    const C* pre = pre_.data();
    C* dpre = dpre_.data();
    C* dbias = dbias_.data();
#pragma omp simd
    for (std::int64_t c = 0; c < n_; ++c) {
      const C sigma = math::sigmoid(pre[c]);
      dpre[c] = static_cast<C>(dy[c]) * sigma * (C{1} + pre[c] * (C{1} - sigma));
      dbias[c] += dpre[c];
    }
    for (std::int64_t s = in_.first(b, t); s <= t; ++s) {
      const std::int64_t tap = s - t + width_ - 1;
      const C* w = taps_.data() + tap * channels + begin_;
      const T* x = in_.row(b, s) + begin_;
      C* dtap = dtaps_.data() + tap * n_;
#pragma omp simd
      for (std::int64_t c = 0; c < n_; ++c) dtap[c] += dpre[c] * static_cast<C>(x[c]);
      if (s < 0) continue;
      C* dx = dx_.data() + s % width_ * n_;
#pragma omp simd
      for (std::int64_t c = 0; c < n_; ++c) dx[c] += dpre[c] * w[c];
    }
  }

  // All tokens that see the input at time s are done: its gradient leaves the ring.
  void finish_dx(std::int64_t b, std::int64_t s) {
    C* from = dx_.data() + s % width_ * n_;
    if (args_.dx.defined()) {
      T* to = args_.dx.data<T>() + (b * args_.x.dim(1) + s) * args_.x.dim(2) + begin_;
#pragma omp simd
      for (std::int64_t c = 0; c < n_; ++c) to[c] = round_to<T>(from[c]);
    }
    std::fill_n(from, n_, C{0});
  }

  void add_weight_gradients() const {
    for (std::int64_t c = 0; c < n_; ++c) {
      for (std::int64_t j = 0; args_.dweight.defined() && j < width_; ++j) {
        args_.dweight.data<C>()[(begin_ + c) * width_ + j] +=
            dtaps_[static_cast<std::size_t>(j * n_ + c)];
      }
      if (args_.dbias.defined()) {
        args_.dbias.data<C>()[begin_ + c] += dbias_[static_cast<std::size_t>(c)];
      }
    }
  }

  const ConvBackwardArgs& args_;
  const Inputs<T>& in_;
  const std::vector<C>& taps_;
  const std::vector<C>& bias_;
  const std::int64_t begin_, n_, width_;
  std::vector<C> pre_, dpre_;     // of one token
  std::vector<C> dx_;             // (K, n): a ring over the last K inputs
  std::vector<C> dtaps_, dbias_;  // (K, n), (n)
};

void backward(const ConvBackwardArgs& args) {
  dispatch_floating("conv_silu_bwd", args.x.dtype(), [&]<class T>() {
    using C = compute_t<T>;
    // At least two cache lines of float32 channels a thread, and enough work.
    const std::int64_t grain = 32 + kElementwiseGrain / (args.x.dim(0) * args.x.dim(1));
    const std::vector<C> taps = taps_of<C>(args.weight);
    const std::vector<C> bias = bias_of<C>(args.bias, args.x.dim(2));
    const Inputs<T> in(args.x, args.weight.dim(1), args.reset, args.window);
    parallel_for(args.x.dim(2), grain, [&](std::int64_t begin, std::int64_t end) {
      ChannelsBackward<T>(args, in, taps, bias, begin, end).run();
    });
  });
}

}  // namespace

void register_conv() {
  conv_silu_fwd.set(DeviceType::kCpu, forward);
  conv_silu_bwd.set(DeviceType::kCpu, backward);
}

}  // namespace carousel::cpu
