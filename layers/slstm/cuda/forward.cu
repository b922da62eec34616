// Precision of what is here: float32 throughout. For bf16 see mma.h and stepwise.h.
#include "core/cuda/launch.h"
#include "layers/slstm/cuda/cell.cuh"
#include "layers/slstm/cuda/kernels.h"
#include "layers/slstm/cuda/mma.h"
#include "layers/slstm/cuda/pointers.cuh"
#include "layers/slstm/cuda/resident.cuh"
#include "layers/slstm/cuda/stepwise.h"

namespace carousel::slstm {
namespace {

// One cluster: one head, kRows batch rows, all time steps. In each step the block multiplies its
// rows of R with h, then one thread for each of its dimensions and batch rows advances the state
// and hands h to all blocks.
template <int kRows>
__global__ void __launch_bounds__(kMaxThreads)
    slstm_fwd_kernel(ForwardPointers<float> p, ResidentPlan plan) {
  extern __shared__ float shared[];
  const int thread = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  const int lanes = plan.forward_lanes;
  const int row_stride = lanes * kSegmentStride;
  float* const h_buffers = shared;                          // (2, kRows, segments): all dimensions
  float* const products = shared + 2 * kRows * row_stride;  // (kRows, 4, slice): R·h
  const int rank = static_cast<int>(blockIdx.x) % plan.cluster;
  const std::int64_t unit = blockIdx.x / static_cast<unsigned>(plan.cluster);
  const std::int64_t head = unit % p.n.heads;
  const std::int64_t first_sequence = unit / p.n.heads * kRows;
  const int size = static_cast<int>(p.n.size);

  // As a multiplier: the four gates of one dimension, one segment of h.
  const int lane = thread % lanes;
  const int out = thread / lanes;
  float weights[kNumGates][kSegment];
#pragma unroll
  for (int g = 0; g < kNumGates; ++g) {
#pragma unroll
    for (int j = 0; j < kSegment; ++j) {
      const int k = lane * kSegment + j;
      const int dim = rank * plan.slice + out;
      const bool inside = out < plan.slice && dim < size && k < size;
      weights[g][j] = inside ? p.r[((head * kNumGates + g) * size + dim) * size + k] : 0.0f;
    }
  }

  // As a cell: one dimension of the slice, one batch row.
  const int row = thread / plan.slice;
  const int local = thread % plan.slice;
  const int dim = rank * plan.slice + local;
  const std::int64_t sequence = first_sequence + row;
  const bool active = row < kRows && dim < size && sequence < p.n.batch;
  Cell<float> cell(p, Element(p.n, sequence, head, dim, 0), active);
  for (int i = thread; i < 2 * kRows * row_stride; i += threads) h_buffers[i] = 0.0f;
  __syncthreads();
  for (int i = thread; p.h0 != nullptr && i < kRows * size; i += threads) {
    if (first_sequence + i / size >= p.n.batch) continue;
    h_buffers[i / size * row_stride + segment_offset(i % size)] =
        p.h0[((first_sequence + i / size) * p.n.heads + head) * size + i % size];
  }
  cluster_barrier(plan.cluster);

  for (std::int64_t t = 0; t < p.n.time; ++t) {
    const int now = static_cast<int>(t % 2);
    // While the multiplications run; behind the barrier, nobody waits for it.
    if (active && t > 0) cell.save(p);
    float sum[kRows][4];
    float result[4];
    multiply_segment(weights, h_buffers + now * kRows * row_stride + lane * kSegmentStride,
                     row_stride, sum);
    reduce_rows(sum, lane, lanes, result);
    const int replicas = lanes / kRows;
    if (out < plan.slice && lane % replicas == 0) {
#pragma unroll
      for (int g = 0; g < kNumGates; ++g) {
        products[(lane / replicas * kNumGates + g) * plan.slice + out] = result[g];
      }
    }
    __syncthreads();
    if (active) {
      const float h = cell.advance(p, products + row * kNumGates * plan.slice + local, plan.slice);
      float* to = h_buffers + ((1 - now) * kRows + row) * row_stride + segment_offset(dim);
      for (int peer = 0; peer < plan.cluster; ++peer) *in_block(to, peer, plan.cluster) = h;
    }
    cluster_barrier(plan.cluster);
  }
  if (active) cell.save(p);
}

// False if the GPU has no room for a cluster.
bool run_resident(const cuda::Stream& stream, const ForwardPointers<float>& p,
                  const ResidentPlan& plan) {
  const std::int64_t blocks = p.n.heads * ((p.n.batch + plan.rows - 1) / plan.rows) * plan.cluster;
  const cuda::LaunchShape shape{.grid = cuda::grid_size(blocks, 1),
                                .block = static_cast<unsigned>(plan.forward_threads),
                                .shared_bytes = forward_shared_bytes(plan),
                                .cluster = static_cast<unsigned>(plan.cluster)};
  const auto run = [&](auto kernel) {
    return cuda::launch_if_cluster_fits("slstm_fwd", stream, shape, kernel, p, plan);
  };
  if (plan.rows == 1) return run(slstm_fwd_kernel<1>);
  if (plan.rows == 2) return run(slstm_fwd_kernel<2>);
  return run(slstm_fwd_kernel<4>);
}

void forward(const CellForwardArgs& args) {
  const cuda::Stream stream(args.h.device());
  if (args.h.dtype() == DType::kBF16) {
    if (!forward_mma(stream, args)) forward_stepwise(stream, args);
    return;
  }
  if (args.h.dtype() == DType::kF32) {
    const Sizes n = Sizes::of(args.h);
    const auto plan = resident_plan(n.batch, n.heads, n.size, stream.info().multiprocessors,
                                    stream.info().clusters);
    if (plan && run_resident(stream, ForwardPointers<float>(args), *plan)) return;
  }
  forward_stepwise(stream, args);  // which refuses other dtypes
}

}  // namespace

void register_cuda_forward() { cell_fwd.set(DeviceType::kCuda, forward); }

}  // namespace carousel::slstm
