#include "core/kernels/embedding.h"

#include <cub/device/device_radix_sort.cuh>

#include <bit>

#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "core/cuda/kernels.h"
#include "core/cuda/launch.h"

namespace carousel::cuda {
namespace {

constexpr int kThreads = 256;

// Copies rows of n units; Unit is uint4 where the addresses allow it, else one element.
template <class Unit>
__global__ void __launch_bounds__(kThreads)
    embedding_fwd_kernel(const std::int32_t* ids, const Unit* weight, Unit* out, std::int64_t rows,
                         std::int64_t n) {
  const std::int64_t row = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const Unit* from = weight + ids[row] * n;
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) out[row * n + i] = from[i];
}

template <class Unit>
void gather(const EmbeddingForwardArgs& args, std::int64_t n) {
  const Stream stream(args.out.device());
  const std::int64_t rows = args.ids.numel();
  const auto lanes = static_cast<unsigned>(
      std::clamp<std::uint64_t>(std::bit_ceil(static_cast<std::uint64_t>(n)), 1, kThreads));
  const dim3 block(lanes, kThreads / lanes);
  launch("embedding_fwd", stream, {grid_size(rows, block.y), block}, embedding_fwd_kernel<Unit>,
         data<std::int32_t>(args.ids), static_cast<const Unit*>(args.weight.raw()),
         static_cast<Unit*>(args.out.raw()), rows, n);
}

void embedding_forward(const EmbeddingForwardArgs& args) {
  const std::int64_t width = args.weight.dim(1);
  if (width == 0) return;
  dispatch_floating("embedding_fwd", args.weight.dtype(), [&]<class T>() {
    if (width % kVector<T> == 0 && aligned16(data<T>(args.weight), data<T>(args.out))) {
      gather<uint4>(args, width / kVector<T>);
    } else {
      gather<T>(args, width);
    }
  });
}

__global__ void __launch_bounds__(kThreads) positions_kernel(std::int32_t* out, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) out[i] = static_cast<std::int32_t>(i);
}

// Tokens are sorted by id, stably; a run is the tokens of one id. Short runs are a warp's work
// each, long ones a block's, found from the positions at multiples of kLongRun: each long run holds
// one.
constexpr int kLongRun = 32;
constexpr int kWarps = kThreads / kWarp;  // short runs of a block
constexpr int kLongWarps = 32;            // warps that share a long run

// The end of the run of ids[first], by doubling steps and then halving them.
__device__ std::int64_t end_of_run(const std::int32_t* ids, std::int64_t first,
                                   std::int64_t count) {
  const std::int32_t id = ids[first];
  std::int64_t step = 1;
  while (first + step < count && ids[first + step] == id) step *= 2;
  std::int64_t inside = first + step / 2;
  std::int64_t outside = first + step < count ? first + step : count;
  while (outside - inside > 1) {
    const std::int64_t middle = (inside + outside) / 2;
    (ids[middle] == id ? inside : outside) = middle;
  }
  return outside;
}

// sum += rows tokens[begin], tokens[begin + step] … of dout, columns [column, column + N).
template <int N, class T>
__device__ __forceinline__ void add_rows(const std::int32_t* tokens, std::int64_t begin,
                                         std::int64_t end, int step, const T* dout,
                                         std::int64_t width, std::int64_t column, float (&sum)[N]) {
#pragma unroll 4
  for (std::int64_t i = begin; i < end; i += step) {
    float row[N];
    load(dout + tokens[i] * width + column, row);
#pragma unroll
    for (int e = 0; e < N; ++e) sum[e] += row[e];
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    embedding_bwd_short_kernel(const std::int32_t* ids, const std::int32_t* tokens, const T* dout,
                               float* dweight, std::int64_t count, std::int64_t width) {
  const std::int64_t first = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (first >= count) return;
  const std::int32_t id = ids[first];
  if (first > 0 && ids[first - 1] == id) return;
  const std::int64_t end = end_of_run(ids, first, count);
  if (end - first > kLongRun) return;
  for (std::int64_t column = threadIdx.x % kWarp * N; column < width; column += kWarp * N) {
    float* to = dweight + id * width + column;
    float sum[N];
    load(to, sum);
    add_rows(tokens, first, end, 1, dout, width, column, sum);
    store(to, sum);
  }
}

// Each warp takes every kLongWarps-th token in order; the warps are added in order.
template <class T, int N>
__global__ void __launch_bounds__(kLongWarps* kWarp)
    embedding_bwd_long_kernel(const std::int32_t* ids, const std::int32_t* tokens, const T* dout,
                              float* dweight, std::int64_t count, std::int64_t width) {
  const std::int64_t position = std::int64_t{blockIdx.x} * kLongRun;
  const std::int32_t id = ids[position];
  std::int64_t first = position;
  while (first > 0 && position - first < kLongRun && ids[first - 1] == id) --first;
  if (position - first >= kLongRun) return;  // the run holds an earlier multiple
  const std::int64_t end = end_of_run(ids, position, count);
  if (end - first <= kLongRun) return;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t column = (std::int64_t{blockIdx.y} * kWarp + lane) * N;
  float sum[N] = {};
  if (column < width) add_rows(tokens, first + warp, end, kLongWarps, dout, width, column, sum);
  __shared__ float partial[kLongWarps][kWarp][N + 1];  // + 1 spreads the banks
#pragma unroll
  for (int e = 0; e < N; ++e) partial[warp][lane][e] = sum[e];
  __syncthreads();
  if (warp != 0 || column >= width) return;
  float* to = dweight + id * width + column;
#pragma unroll
  for (int e = 0; e < N; ++e) {
    float total = to[e];
    for (int w = 0; w < kLongWarps; ++w) total += partial[w][lane][e];
    to[e] = total;
  }
}

// The token positions in the order of their ids, and the ids so ordered.
struct SortedTokens {
  Tensor ids, tokens;
};

SortedTokens sort_tokens(const Stream& stream, const Tensor& ids, std::int64_t vocabulary) {
  const RoleScope role(Role::kWorkspace);
  const std::int64_t n = ids.numel();
  const auto make = [&] { return Tensor::empty({n}, DType::kI32, stream.device()); };
  const Tensor positions = make();
  SortedTokens sorted{make(), make()};
  launch("positions", stream, {grid_size(n, kThreads), kThreads}, positions_kernel,
         data<std::int32_t>(positions), n);
  const int bits =
      std::max(1, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(vocabulary - 1))));
  std::size_t bytes = 0;
  const auto run = [&](void* scratch) {
    CUDA_CHECK(cub::DeviceRadixSort::SortPairs(
        scratch, bytes, data<std::int32_t>(ids), data<std::int32_t>(sorted.ids),
        data<std::int32_t>(positions), data<std::int32_t>(sorted.tokens), static_cast<int>(n), 0,
        bits, stream.handle()));
  };
  run(nullptr);  // asks for the scratch's size
  const Tensor scratch =
      Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::kU8, stream.device());
  run(scratch.raw());
  return sorted;
}

void embedding_backward(const EmbeddingBackwardArgs& args) {
  const std::int64_t count = args.ids.numel();
  const std::int64_t width = args.dweight.dim(1);
  if (count == 0 || width == 0) return;
  CAROUSEL_CHECK(count < (std::int64_t{1} << 31), "{} tokens in one call", count);
  const Stream stream(args.dweight.device());
  const SortedTokens sorted = sort_tokens(stream, args.ids, args.dweight.dim(0));
  dispatch_floating("embedding_bwd", args.dout.dtype(), [&]<class T>() {
    const T* dout = data<T>(args.dout);
    const auto run = [&]<int N>() {
      const auto* ids = data<std::int32_t>(sorted.ids);
      const auto* tokens = data<std::int32_t>(sorted.tokens);
      float* dweight = data<float>(args.dweight);
      launch("embedding_bwd_short", stream, {grid_size(count, kWarps), kThreads},
             embedding_bwd_short_kernel<T, N>, ids, tokens, dout, dweight, count, width);
      launch("embedding_bwd_long", stream,
             {dim3(grid_size(count, kLongRun), grid_size(width, kWarp * N)), kLongWarps * kWarp},
             embedding_bwd_long_kernel<T, N>, ids, tokens, dout, dweight, count, width);
    };
    if (width % kVector<T> == 0 && aligned16(dout, data<float>(args.dweight))) {
      run.template operator()<kVector<T>>();
    } else {
      run.template operator()<1>();
    }
  });
}

}  // namespace

void register_embedding() {
  embedding_fwd.set(DeviceType::kCuda, embedding_forward);
  embedding_bwd.set(DeviceType::kCuda, embedding_backward);
}

}  // namespace carousel::cuda
