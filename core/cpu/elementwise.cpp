#include "core/kernels/elementwise.h"

#include <algorithm>
#include <array>

#include "core/base/parallel.h"
#include "core/cpu/dispatch.h"
#include "core/cpu/kernels.h"
#include "core/cpu/reduce.h"

namespace carousel::cpu {
namespace {

// out[i] = f(i) for i in [0, n), in parallel and vectorised.
template <class T, class F>
void map(T* out, std::int64_t n, F&& f) {
  parallel_for(n, kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) out[i] = f(i);
  });
}

void add(const AddArgs& args) {
  dispatch_floating("add_fwd", args.a.dtype(), [&]<class T>() {
    using C = compute_t<T>;
    const T* a = args.a.data<T>();
    const T* b = args.b.data<T>();
    map(args.out.data<T>(), args.out.numel(), [=](std::int64_t i) {
      return static_cast<T>(static_cast<C>(a[i]) + static_cast<C>(b[i]));
    });
  });
}

template <class From, class To>
To convert(From value) {
  using C = compute_t<From>;
  if constexpr (std::is_same_v<To, bfloat16>) {
    return bfloat16(static_cast<float>(static_cast<C>(value)));
  } else {
    return static_cast<To>(static_cast<C>(value));
  }
}

void cast_kernel(const CastArgs& args) {
  dispatch_floating("cast", args.x.dtype(), [&]<class From>() {
    dispatch_floating("cast", args.out.dtype(), [&]<class To>() {
      const From* x = args.x.data<From>();
      map(args.out.data<To>(), args.out.numel(),
          [=](std::int64_t i) { return convert<From, To>(x[i]); });
    });
  });
}

void accumulate_kernel(const AccumulateArgs& args) {
  dispatch_floating("accumulate", args.x.dtype(), [&]<class From>() {
    dispatch_floating("accumulate", args.out.dtype(), [&]<class To>() {
      using C = compute_t<To>;
      const From* x = args.x.data<From>();
      To* out = args.out.data<To>();
      map(out, args.out.numel(), [=](std::int64_t i) {
        return static_cast<To>(static_cast<C>(out[i]) + convert<From, C>(x[i]));
      });
    });
  });
}

void scale_kernel(const ScaleArgs& args) {
  dispatch_floating("scale", args.x.dtype(), [&]<class T>() {
    using C = compute_t<T>;
    const T* x = args.x.data<T>();
    const auto alpha = static_cast<C>(args.alpha);
    map(args.out.data<T>(), args.out.numel(),
        [=](std::int64_t i) { return static_cast<T>(alpha * static_cast<C>(x[i])); });
  });
}

void fill_kernel(const FillArgs& args) {
  dispatch_floating("fill", args.out.dtype(), [&]<class T>() {
    const T value(static_cast<compute_t<T>>(args.value));
    map(args.out.data<T>(), args.out.numel(), [=](std::int64_t) { return value; });
  });
}

void sum_kernel(const SumArgs& args) {
  dispatch_floating("sum_fwd", args.x.dtype(), [&]<class T>() {
    const T* x = args.x.data<T>();
    const double total = ordered_sum(args.x.numel(), [x](std::int64_t i) {
      return static_cast<double>(static_cast<compute_t<T>>(x[i]));
    });
    *args.out.data<T>() = static_cast<T>(static_cast<compute_t<T>>(total));
  });
}

void broadcast_kernel(const BroadcastArgs& args) {
  dispatch_floating("broadcast", args.x.dtype(), [&]<class T>() {
    const T value = *args.x.data<T>();
    map(args.out.data<T>(), args.out.numel(), [=](std::int64_t) { return value; });
  });
}

// Elements whose random words are drawn together, so that Philox runs in vector registers.
constexpr std::int64_t kDropoutTile = 256;

// The words of elements begin … begin + kDropoutTile − 1; begin is a multiple of 4.
void random_words(const RandomKey& key, std::int64_t begin,
                  std::array<std::uint32_t, kDropoutTile>& words) {
#pragma omp simd
  for (std::size_t block = 0; block < kDropoutTile / 4; ++block) {
    const PhiloxWords w = philox_block(key, static_cast<std::uint64_t>(begin) / 4 + block);
    words[4 * block] = w.x[0];
    words[4 * block + 1] = w.x[1];
    words[4 * block + 2] = w.x[2];
    words[4 * block + 3] = w.x[3];
  }
}

void dropout_kernel(const DropoutArgs& args) {
  dispatch_floating("dropout", args.x.dtype(), [&]<class T>() {
    using C = compute_t<T>;
    const T* x = args.x.data<T>();
    T* out = args.out.data<T>();
    const auto p = static_cast<float>(args.p);
    const auto keep = static_cast<C>(1.0 / (1.0 - args.p));
    const std::int64_t n = args.out.numel();
    const std::int64_t tiles = (n + kDropoutTile - 1) / kDropoutTile;
    parallel_for(tiles, kElementwiseGrain / kDropoutTile,
                 [&](std::int64_t first, std::int64_t last) {
                   std::array<std::uint32_t, kDropoutTile> words;
                   for (std::int64_t begin = first * kDropoutTile; begin < last * kDropoutTile;
                        begin += kDropoutTile) {
                     random_words(args.key, begin, words);
                     const std::int64_t count = std::min(kDropoutTile, n - begin);
#pragma omp simd
                     for (std::int64_t i = 0; i < count; ++i) {
                       const C scaled = keep * static_cast<C>(x[begin + i]);
                       const bool kept = uniform_from_word(words[static_cast<std::size_t>(i)]) >= p;
                       out[begin + i] = round_to<T>(kept ? scaled : C{0});
                     }
                   }
                 });
  });
}

}  // namespace

void register_elementwise() {
  add_fwd.set(DeviceType::kCpu, add);
  cast.set(DeviceType::kCpu, cast_kernel);
  accumulate.set(DeviceType::kCpu, accumulate_kernel);
  scale.set(DeviceType::kCpu, scale_kernel);
  fill.set(DeviceType::kCpu, fill_kernel);
  sum_fwd.set(DeviceType::kCpu, sum_kernel);
  broadcast.set(DeviceType::kCpu, broadcast_kernel);
  dropout.set(DeviceType::kCpu, dropout_kernel);
}

}  // namespace carousel::cpu
