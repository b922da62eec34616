#include "core/comm/cuda/tree_sum.h"

#include <algorithm>

#include "core/cuda/error.h"

namespace carousel::comm {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 2;  // packs of a thread

template <class T, int kSize>
struct alignas(kSize * sizeof(T)) Pack {
  T x[kSize];
};

template <class T>
struct Vectors {
  const T* at[kMaxTreeRanks];
  int count;
};

// Short-lived blocks: the backward that may go on meanwhile waits for none of them long.
template <class T, int kSize, int kCount>
__global__ void __launch_bounds__(kThreads)
    tree_sum_kernel(Vectors<T> vectors, std::int64_t packs, T* sum) {
  using P = Pack<T, kSize>;
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads * kUnroll + threadIdx.x;
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const std::int64_t i = first + u * kThreads;
    if (i >= packs) return;
    P v[kCount] = {};
#pragma unroll
    for (int p = 0; p < kCount; ++p) {
      if (p < vectors.count) v[p] = reinterpret_cast<const P*>(vectors.at[p])[i];
    }
#pragma unroll
    for (int half = 1; half < kCount; half *= 2) {
#pragma unroll
      for (int p = 0; p + half < kCount; p += 2 * half) {
#pragma unroll
        for (int e = 0; e < kSize; ++e) v[p].x[e] += v[p + half].x[e];
      }
    }
    reinterpret_cast<P*>(sum)[i] = v[0];
  }
}

template <class T, int kSize, int kCount>
void run(const Vectors<T>& vectors, std::int64_t packs, T* sum, cudaStream_t stream) {
  if constexpr (kCount < kMaxTreeRanks) {
    if (vectors.count > kCount) return run<T, kSize, 2 * kCount>(vectors, packs, sum, stream);
  }
  constexpr std::int64_t kBlock = kThreads * kUnroll;
  tree_sum_kernel<T, kSize, kCount>
      <<<static_cast<unsigned>((packs + kBlock - 1) / kBlock), kThreads, 0, stream>>>(vectors,
                                                                                      packs, sum);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace

template <class T>
void tree_sum(const std::vector<const void*>& vectors, std::int64_t n, T* sum,
              cudaStream_t stream) {
  constexpr int kWide = 16 / sizeof(T);
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  Vectors<T> all{.at = {}, .count = static_cast<int>(vectors.size())};
  for (std::size_t i = 0; i < vectors.size(); ++i) all.at[i] = static_cast<const T*>(vectors[i]);
  if (n == 0) return;
  constexpr std::size_t kMostWide = 8;  // more of them would fill the registers
  if (vectors.size() <= kMostWide && n % kWide == 0 && aligned(sum) &&
      std::ranges::all_of(vectors, aligned)) {
    run<T, kWide, 1>(all, n / kWide, sum, stream);
  } else {
    run<T, 1, 1>(all, n, sum, stream);
  }
}

template void tree_sum(const std::vector<const void*>&, std::int64_t, float*, cudaStream_t);
template void tree_sum(const std::vector<const void*>&, std::int64_t, double*, cudaStream_t);

}  // namespace carousel::comm
