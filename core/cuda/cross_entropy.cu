#include "core/kernels/cross_entropy.h"

#include <bit>

#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "core/cuda/kernels.h"
#include "core/cuda/launch.h"

namespace carousel::cuda {
namespace {

constexpr int kMaxThreads = 512;

// Calls vector(i) for every 16-byte vector inside [row, row + n) and scalar(i) for the elements
// before and after them, with i an index into the row, over the threads of the block.
template <class T, class Vector, class Scalar>
__device__ __forceinline__ void for_row(const T* row, std::int64_t n, Vector&& vector,
                                        Scalar&& scalar) {
  constexpr int kN = kVector<T>;
  const auto misaligned = reinterpret_cast<std::uintptr_t>(row) / sizeof(T) % kN;
  const std::int64_t head = min(n, static_cast<std::int64_t>((kN - misaligned) % kN));
  const std::int64_t vectors = (n - head) / kN;
  if (threadIdx.x < head) scalar(std::int64_t{threadIdx.x});
#pragma unroll 4
  for (std::int64_t v = threadIdx.x; v < vectors; v += blockDim.x) vector(head + v * kN);
  const std::int64_t tail = head + vectors * kN + threadIdx.x;
  if (tail < n) scalar(tail);
}

// z = x.
struct NoCap {
  __device__ float operator()(float x) const { return x; }
  __device__ float slope(float) const { return 1.0f; }
};
// z = cap·tanh(x/cap), by one 2^x and one division, without fast_tanh's care for relative accuracy
// near zero: what counts is z's absolute error, below 3e-7·cap.
struct Cap {
  float cap, scale;  // scale = 2/cap
  __device__ float operator()(float x) const {
    return cap - __fdividef(2.0f * cap, __expf(scale * x) + 1.0f);
  }
  // dz/dx from z.
  __device__ float slope(float z) const {
    const float t = 0.5f * scale * z;
    return 1.0f - t * t;
  }
};

template <class F>
void dispatch_cap(double cap, F&& f) {
  if (cap > 0) return f(Cap{static_cast<float>(cap), static_cast<float>(2.0 / cap)});
  f(NoCap{});
}

// max and Σ e^{z − max} of some of a row's logits.
class Softmax {
 public:
  float max = -INFINITY;
  float sum = 0.0f;

  template <int N>
  __device__ void add(const float (&z)[N]) {
    float largest = z[0];
#pragma unroll
    for (int e = 1; e < N; ++e) largest = fmaxf(largest, z[e]);
    raise(largest);
    const float base = finite_max();
#pragma unroll
    for (int e = 0; e < N; ++e) sum += __expf(z[e] - base);
  }
  __device__ void merge(float other_max, float other_sum) {
    raise(other_max);
    if (other_sum != 0.0f) sum += other_sum * __expf(other_max - max);
  }

 private:
  __device__ void raise(float largest) {
    if (largest > max) {
      sum *= __expf(max - largest);
      max = largest;
    }
  }
  // −inf − −inf is NaN; under any finite base, logits of −inf add nothing.
  __device__ float finite_max() const { return max == -INFINITY ? 0.0f : max; }
};

template <class T, class C>
__global__ void __launch_bounds__(kMaxThreads)
    cross_entropy_fwd_kernel(const T* logits, const std::int32_t* target, float* loss, float* lse,
                             std::uint8_t* correct, std::int64_t vocabulary, C cap) {
  constexpr int kN = kVector<T>;
  const T* row = logits + blockIdx.x * vocabulary;
  Softmax softmax;
  for_row(
      row, vocabulary,
      [&](std::int64_t i) {
        float z[kN];
        load(row + i, z);
#pragma unroll
        for (int e = 0; e < kN; ++e) z[e] = cap(z[e]);
        softmax.add(z);
      },
      [&](std::int64_t i) {
        const float z[1] = {cap(to_float(row[i]))};
        softmax.add(z);
      });

  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const float other_max = __shfl_xor_sync(kAllLanes, softmax.max, offset);
    const float other_sum = __shfl_xor_sync(kAllLanes, softmax.sum, offset);
    softmax.merge(other_max, other_sum);
  }
  __shared__ float maxima[kMaxThreads / kWarp];
  __shared__ float sums[kMaxThreads / kWarp];
  if (threadIdx.x % kWarp == 0) {
    maxima[threadIdx.x / kWarp] = softmax.max;
    sums[threadIdx.x / kWarp] = softmax.sum;
  }
  __syncthreads();
  const std::int32_t at = target[blockIdx.x];
  const float chosen = at == kIgnoreTarget ? 0.0f : cap(to_float(row[at]));
  if (threadIdx.x == 0) {
    for (unsigned w = 1; w < blockDim.x / kWarp; ++w) softmax.merge(maxima[w], sums[w]);
    const float log_sum = softmax.max + logf(softmax.sum);
    lse[blockIdx.x] = log_sum;
    loss[blockIdx.x] = at == kIgnoreTarget ? 0.0f : log_sum - chosen;
  }
  if (correct == nullptr) return;
  bool beaten = at == kIgnoreTarget;
  for (unsigned w = 0; w < blockDim.x / kWarp; ++w) beaten |= !(chosen >= maxima[w]);
  if (!beaten) {  // the row is read again only where the target has the largest logit
    for (std::int64_t i = threadIdx.x; i < at; i += blockDim.x) {
      beaten |= cap(to_float(row[i])) == chosen;
    }
  }
  beaten = __syncthreads_or(beaten);
  if (threadIdx.x == 0) correct[blockIdx.x] = !beaten;
}

template <class T, class C>
__global__ void __launch_bounds__(kMaxThreads)
    cross_entropy_bwd_kernel(const T* logits, const std::int32_t* target, const float* lse,
                             const float* dloss, T* dlogits, std::int64_t vocabulary, C cap) {
  constexpr int kN = kVector<T>;
  const T* row = logits + blockIdx.x * vocabulary;
  T* out = dlogits + blockIdx.x * vocabulary;
  const std::int32_t at = target[blockIdx.x];
  const float scale = at == kIgnoreTarget ? 0.0f : dloss[blockIdx.x];
  const float log_sum = lse[blockIdx.x];
  // An ignored row is written as zeros whatever its logits are.
  const auto gradient = [&](float x, std::int64_t i) {
    const float z = cap(x);
    const float p = __expf(z - log_sum) - (i == at ? 1.0f : 0.0f);
    return at == kIgnoreTarget ? 0.0f : scale * p * cap.slope(z);
  };
  for_row(
      row, vocabulary,
      [&](std::int64_t i) {
        float z[kN];
        load(row + i, z);
#pragma unroll
        for (int e = 0; e < kN; ++e) z[e] = gradient(z[e], i + e);
        store(out + i, z);
      },
      [&](std::int64_t i) { out[i] = from_float<T>(gradient(to_float(row[i]), i)); });
}

// A few vectors a thread, whole warps.
template <class T>
unsigned threads_for(std::int64_t vocabulary) {
  const auto wanted = static_cast<std::uint64_t>(vocabulary / (4 * kVector<T>));
  return static_cast<unsigned>(
      std::clamp<std::uint64_t>(std::bit_ceil(wanted), kWarp, kMaxThreads));
}

void cross_entropy_forward(const CrossEntropyForwardArgs& args) {
  dispatch_floating("cross_entropy_fwd", args.logits.dtype(), [&]<class T>() {
    dispatch_cap(args.cap, [&]<class C>(const C& cap) {
      const std::int64_t vocabulary = args.logits.dim(1);
      launch("cross_entropy_fwd", Stream(args.loss.device()),
             {grid_size(args.logits.dim(0), 1), threads_for<T>(vocabulary)},
             cross_entropy_fwd_kernel<T, C>, data<T>(args.logits), data<std::int32_t>(args.target),
             data<float>(args.loss), data<float>(args.lse),
             data_or_null<std::uint8_t>(args.correct), vocabulary, cap);
    });
  });
}

void cross_entropy_backward(const CrossEntropyBackwardArgs& args) {
  dispatch_floating("cross_entropy_bwd", args.logits.dtype(), [&]<class T>() {
    const std::int64_t vocabulary = args.logits.dim(1);
    const T* logits = data<T>(args.logits);
    T* dlogits = data<T>(args.dlogits);
    // Vector stores need the gradient's rows aligned as the logits' are.
    CAROUSEL_CHECK(
        (reinterpret_cast<std::uintptr_t>(logits) - reinterpret_cast<std::uintptr_t>(dlogits)) %
                16 ==
            0,
        "[cross_entropy_bwd] logits and dlogits are aligned differently");
    dispatch_cap(args.cap, [&]<class C>(const C& cap) {
      launch("cross_entropy_bwd", Stream(args.dlogits.device()),
             {grid_size(args.logits.dim(0), 1), threads_for<T>(vocabulary)},
             cross_entropy_bwd_kernel<T, C>, logits, data<std::int32_t>(args.target),
             data<float>(args.lse), data<float>(args.dloss), dlogits, vocabulary, cap);
    });
  });
}

}  // namespace

void register_cross_entropy() {
  cross_entropy_fwd.set(DeviceType::kCuda, cross_entropy_forward);
  cross_entropy_bwd.set(DeviceType::kCuda, cross_entropy_backward);
}

}  // namespace carousel::cuda
