// Precision: x and h in T; R, the recurrent h and everything between in float32.
#include "core/cuda/launch.h"
#include "layers/slstm/cuda/kernels.h"
#include "layers/slstm/cuda/pointers.cuh"
#include "layers/slstm/cuda/resident.cuh"
#include "layers/slstm/cuda/stepwise.h"

namespace carousel::slstm {
namespace {

// One cluster: one head, kRows batch rows, all time steps. A group of lanes serves one dimension:
// its threads multiply, and after reduce_rows each lane advances one row's state (several lanes may
// hold the same row; the first of them writes).
template <class T, int kRows>
__global__ void __launch_bounds__(kMaxThreads)
    slstm_fwd_kernel(ForwardPointers<T> p, ResidentPlan plan) {
  extern __shared__ float h_buffers[];  // (2, kRows, segments): h of all dimensions
  const int thread = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  const int lanes = plan.forward_lanes;
  const int row_stride = lanes * kSegmentStride;
  const int rank = static_cast<int>(blockIdx.x) % plan.cluster;
  const std::int64_t unit = blockIdx.x / static_cast<unsigned>(plan.cluster);
  const std::int64_t head = unit % p.n.heads;
  const std::int64_t first_sequence = unit / p.n.heads * kRows;
  const int size = static_cast<int>(p.n.size);
  const int lane = thread % lanes;
  const int dim = rank * plan.slice + thread / lanes;
  const bool serves = thread / lanes < plan.slice && dim < size;
  const int replicas = lanes / kRows;
  const int row = lane / replicas;
  const int replica = lane % replicas;
  const std::int64_t sequence = first_sequence + row;
  const bool active = serves && sequence < p.n.batch;

  float weights[kNumGates][kSegment];
  float bias[kNumGates];
#pragma unroll
  for (int g = 0; g < kNumGates; ++g) {
    bias[g] = serves ? p.b[(g * p.n.heads + head) * size + dim] : 0.0f;
#pragma unroll
    for (int j = 0; j < kSegment; ++j) {
      const int k = lane * kSegment + j;
      weights[g][j] =
          serves && k < size ? p.r[((head * kNumGates + g) * size + dim) * size + k] : 0.0f;
    }
  }
  ElementState<float> state{0.0f, 0.0f, -INFINITY};
  if (active) state = p.initial_state(sequence, head, dim);
  for (int i = thread; i < 2 * kRows * row_stride; i += threads) h_buffers[i] = 0.0f;
  __syncthreads();
  for (int i = thread; p.h0 != nullptr && i < kRows * size; i += threads) {
    if (first_sequence + i / size >= p.n.batch) continue;
    h_buffers[i / size * row_stride + segment_offset(i % size)] =
        p.h0[p.n.state(first_sequence + i / size, head, i % size)];
  }

  // Inputs are read a step ahead.
  float x[kNumGates] = {};
  bool starts_next = false;
  const auto read = [&](std::int64_t t) {
    if (!active || t >= p.n.time) return;
#pragma unroll
    for (int g = 0; g < kNumGates; ++g)
      x[g] = cuda::to_float(p.x[g][p.n.token(sequence, t, head, dim)]);
    starts_next = p.starts(sequence, t);
  };
  read(0);
  cluster_barrier(plan.cluster);

  float h = 0.0f;
  for (std::int64_t t = 0; t < p.n.time; ++t) {
    const int now = static_cast<int>(t % 2);
    float pre[kNumGates];
#pragma unroll
    for (int g = 0; g < kNumGates; ++g) pre[g] = x[g] + bias[g];
    const bool starts = starts_next;
    read(t + 1);
    float sum[kRows][4];
    float recurrent[4];
    multiply_segment(weights, h_buffers + now * kRows * row_stride + lane * kSegmentStride,
                     row_stride, sum);
    reduce_rows(sum, lane, lanes, recurrent);
    if (starts) {
      state = {0.0f, 0.0f, -INFINITY};
    } else {
#pragma unroll
      for (int g = 0; g < kNumGates; ++g) pre[g] += recurrent[g];
    }
    const ElementGates<float> gate = step<DeviceMath>(pre[0], pre[1], pre[2], pre[3], state);
    h = gate.o * state.c / state.n;
    if (active) {
      // The row's replicas share the blocks that want its h.
      float* to = h_buffers + ((1 - now) * kRows + row) * row_stride + segment_offset(dim);
      for (int peer = replica; peer < plan.cluster; peer += replicas)
        *in_block(to, peer, plan.cluster) = h;
      if (replica == 0) p.save(sequence, t, head, dim, h, gate, state);
    }
    cluster_barrier(plan.cluster);
  }
  if (active && replica == 0) p.save_last(sequence, head, dim, h, state);
}

template <class T>
void run_resident(const cuda::Stream& stream, const ForwardPointers<T>& p,
                  const ResidentPlan& plan) {
  const std::int64_t blocks = p.n.heads * ((p.n.batch + plan.rows - 1) / plan.rows) * plan.cluster;
  const cuda::LaunchShape shape{.grid = cuda::grid_size(blocks, 1),
                                .block = static_cast<unsigned>(plan.forward_threads),
                                .shared_bytes = forward_shared_bytes(plan),
                                .cluster = static_cast<unsigned>(plan.cluster)};
  const auto run = [&](auto kernel) { cuda::launch("slstm_fwd", stream, shape, kernel, p, plan); };
  if (plan.rows == 1) return run(slstm_fwd_kernel<T, 1>);
  if (plan.rows == 2) return run(slstm_fwd_kernel<T, 2>);
  run(slstm_fwd_kernel<T, 4>);
}

void forward(const CellForwardArgs& args) {
  cuda::dispatch_floating("slstm_fwd", args.h.dtype(), [&]<class T>() {
    const cuda::Stream stream(args.h.device());
    const ForwardPointers<T> p(args);
    const auto plan = resident_plan(p.n.batch, p.n.heads, p.n.size, stream.info().multiprocessors,
                                    stream.info().major >= 9);
    if (plan) {
      run_resident(stream, p, *plan);
    } else {
      forward_stepwise(stream, args);
    }
  });
}

}  // namespace

void register_cuda_forward() { cell_fwd.set(DeviceType::kCuda, forward); }

}  // namespace carousel::slstm
