#include "core/kernels/elementwise.h"

#include "core/cuda/kernels.h"
#include "core/cuda/map.cuh"

namespace carousel::cuda {
namespace {

constexpr int kThreads = 256;

struct Identity {
  static constexpr bool kUpdates = false;
  __device__ void operator()(const float (&in)[1], float (&out)[1]) const { out[0] = in[0]; }
};
struct Sum {
  static constexpr bool kUpdates = false;
  __device__ void operator()(const float (&in)[2], float (&out)[1]) const {
    out[0] = in[0] + in[1];
  }
};
struct Accumulated {
  static constexpr bool kUpdates = true;
  __device__ void operator()(const float (&in)[1], float (&out)[1]) const { out[0] += in[0]; }
};
struct Scaled {
  static constexpr bool kUpdates = false;
  float alpha;
  __device__ void operator()(const float (&in)[1], float (&out)[1]) const {
    out[0] = alpha * in[0];
  }
};

void add_tensors(const AddArgs& args) {
  dispatch_floating("add_fwd", args.a.dtype(), [&]<class T>() {
    map<T, T>("add_fwd", Sum{}, {args.a, args.b}, {args.out});
  });
}

void cast_tensor(const CastArgs& args) {
  dispatch_floating("cast", args.x.dtype(), [&]<class From>() {
    dispatch_floating("cast", args.out.dtype(),
                      [&]<class To>() { map<From, To>("cast", Identity{}, {args.x}, {args.out}); });
  });
}

void accumulate_tensor(const AccumulateArgs& args) {
  dispatch_floating("accumulate", args.x.dtype(), [&]<class From>() {
    dispatch_floating("accumulate", args.out.dtype(), [&]<class To>() {
      map<From, To>("accumulate", Accumulated{}, {args.x}, {args.out});
    });
  });
}

void scale_tensor(const ScaleArgs& args) {
  dispatch_floating("scale", args.x.dtype(), [&]<class T>() {
    map<T, T>("scale", Scaled{static_cast<float>(args.alpha)}, {args.x}, {args.out});
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads) fill_kernel(T* out, std::int64_t n, float value) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) out[i] = from_float<T>(value);
}

void fill_tensor(const FillArgs& args) {
  dispatch_floating("fill", args.out.dtype(), [&]<class T>() {
    const std::int64_t n = args.out.numel();
    launch("fill", Stream(args.out.device()), {grid_size(n, kThreads), kThreads}, fill_kernel<T>,
           data<T>(args.out), n, static_cast<float>(args.value));
  });
}

// One Philox block, of four elements, a thread.
template <class T>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(const T* x, T* out, std::int64_t n, bool aligned, float p, float keep,
                   RandomKey key) {
  const std::int64_t block = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t i = 4 * block;
  if (i >= n) return;
  const PhiloxWords words = philox_block(key, static_cast<std::uint64_t>(block));
  const auto dropped = [&](int e, float value) {
    return uniform_from_word(words.x[e]) >= p ? keep * value : 0.0f;
  };
  if (aligned && i + 4 <= n) {
    float values[4];
    load(x + i, values);
#pragma unroll
    for (int e = 0; e < 4; ++e) values[e] = dropped(e, values[e]);
    store(out + i, values);
  } else {
    for (int e = 0; e < 4 && i + e < n; ++e) {
      out[i + e] = from_float<T>(dropped(e, to_float(x[i + e])));
    }
  }
}

void dropout_tensor(const DropoutArgs& args) {
  dispatch_floating("dropout", args.x.dtype(), [&]<class T>() {
    const T* x = data<T>(args.x);
    T* out = data<T>(args.out);
    const std::int64_t n = args.out.numel();
    launch("dropout", Stream(args.out.device()), {grid_size(n, 4 * kThreads), kThreads},
           dropout_kernel<T>, x, out, n, aligned16(x, out), static_cast<float>(args.p),
           static_cast<float>(1.0 / (1.0 - args.p)), args.key);
  });
}

}  // namespace

void register_elementwise() {
  add_fwd.set(DeviceType::kCuda, add_tensors);
  cast.set(DeviceType::kCuda, cast_tensor);
  accumulate.set(DeviceType::kCuda, accumulate_tensor);
  scale.set(DeviceType::kCuda, scale_tensor);
  fill.set(DeviceType::kCuda, fill_tensor);
  dropout.set(DeviceType::kCuda, dropout_tensor);
}

}  // namespace carousel::cuda
