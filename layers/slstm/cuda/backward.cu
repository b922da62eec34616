// Precision of what is here: float32 throughout. For bf16 see mma.h and stepwise.h. R's gradient is
// one product of what was stored, dxᵀ·h, accumulated in float32.
#include "core/cuda/launch.h"
#include "layers/slstm/cuda/kernels.h"
#include "layers/slstm/cuda/mma.h"
#include "layers/slstm/cuda/parameters.h"
#include "layers/slstm/cuda/pointers.cuh"
#include "layers/slstm/cuda/resident.cuh"
#include "layers/slstm/cuda/saved_ring.cuh"
#include "layers/slstm/cuda/stepwise.h"

namespace carousel::slstm {
namespace {

// One cluster: one head, kRows batch rows, all time steps backwards. In each step a block
// differentiates its own slice of dimensions, multiplies their gate gradients with its rows of R,
// and hands every block that block's slice of the partial dh; the owner adds the partials up in
// order.
template <int kRows, int kThreads>
__global__ void __launch_bounds__(kThreads)
    slstm_bwd_kernel(BackwardPointers<float> p, ResidentPlan plan) {
  extern __shared__ float shared[];
  const int thread = static_cast<int>(threadIdx.x);
  const int lanes = plan.backward_lanes;
  const int row_stride = lanes * kSegmentStride;
  float* const dgates = shared;                         // (kRows, segments of 4·slice)
  float* const partials = shared + kRows * row_stride;  // (2, cluster, kRows, slice)
  const int partials_size = plan.cluster * kRows * plan.slice;
  const int elements = kRows * plan.slice;
  const int rank = static_cast<int>(blockIdx.x) % plan.cluster;
  const std::int64_t unit = blockIdx.x / static_cast<unsigned>(plan.cluster);
  const std::int64_t head = unit % p.n.heads;
  const std::int64_t first_sequence = unit / p.n.heads * kRows;
  const int size = static_cast<int>(p.n.size);

  // As a multiplier: four dimensions of dh, one segment of the block's gate gradients.
  const int lane = thread % lanes;
  const int out = thread / lanes * 4;
  const bool multiplies = out < plan.cluster * plan.slice;
  float weights[4][kSegment];
#pragma unroll
  for (int o = 0; o < 4; ++o) {
#pragma unroll
    for (int j = 0; j < kSegment; ++j) {
      const int q = lane * kSegment + j;
      const int dim = rank * plan.slice + q % plan.slice;
      const bool inside = q < kNumGates * plan.slice && dim < size && out + o < size;
      weights[o][j] =
          inside ? p.r[((head * kNumGates + q / plan.slice) * size + dim) * size + out + o] : 0.0f;
    }
  }

  // As a differentiator: one dimension of the slice, one batch row.
  const int row = thread / plan.slice;
  const int local = thread % plan.slice;
  const int dim = rank * plan.slice + local;
  const std::int64_t sequence = first_sequence + row;
  const bool active = row < kRows && dim < size && sequence < p.n.batch;
  float dh = 0.0f;  // from the step after
  float dc = 0.0f;
  float dn = 0.0f;
  const SavedRing<float> ring(partials + 2 * partials_size, active ? thread : 0, elements);
  Element at(p.n, sequence, head, dim, p.n.time - 1);
  ElementState<float> after{};
  float dh_out = 0.0f;
  std::uint8_t start = 0;
  if (active) {
    if (p.dh_last != nullptr) {
      dh = p.dh_last[at.state];
      dc = p.dc_last[at.state];
      dn = p.dn_last[at.state];
    }
    after = p.state_after(at);
    dh_out = p.dh[at.token];
    start = p.start(at);
  }
#pragma unroll
  for (int steps = 0; steps < kStepsAhead - 1; ++steps) {
    if (active && at.t >= steps) ring.fetch(p, at.later(p.n, -steps));
    commit_copies();
  }
  for (int i = thread; i < kRows * row_stride; i += static_cast<int>(blockDim.x)) dgates[i] = 0.0f;
  cluster_barrier(plan.cluster);

  for (std::int64_t t = p.n.time - 1; t >= 0; --t) {
    if (active && at.t >= kStepsAhead - 1) ring.fetch(p, at.later(p.n, 1 - kStepsAhead));
    commit_copies();
    wait_copies<kStepsAhead - 1>();
    const bool starts = start != 0;
    if (active) {
      SavedStep<float> saved = ring.get(at.t);
      saved.dh = dh_out;
      saved.start = start;
      const ElementGradients<float> d = saved.differentiate(after, dh, dc, dn);
      const float gradients[kNumGates] = {d.i, d.f, d.z, d.o};
#pragma unroll
      for (int g = 0; g < kNumGates; ++g) {
        dgates[row * row_stride + segment_offset(g * plan.slice + local)] = gradients[g];
        p.write_dx(at, g, gradients[g]);
      }
      after = saved.before;
      if (t > 0) {
        // Read a step ahead of their use, and called into the L2 cache long before.
        at = at.later(p.n, -1);
        dh_out = p.dh[at.token];
        start = p.start(at);
        if (at.t >= kPrefetch) prefetch(p.dh + at.later(p.n, -kPrefetch).token);
      }
    }
    __syncthreads();
    float sum[kRows][4];
    float result[4];
    multiply_segment(weights, dgates + lane * kSegmentStride, row_stride, sum);
    reduce_rows(sum, lane, lanes, result);
    const int buffer = static_cast<int>(t % 2) * partials_size;
    const int replicas = lanes / kRows;
    if (multiplies && lane % replicas == 0) {
      float* to =
          partials + buffer + (rank * kRows + lane / replicas) * plan.slice + out % plan.slice;
      *reinterpret_cast<float4*>(in_block(to, out / plan.slice, plan.cluster)) =
          make_float4(result[0], result[1], result[2], result[3]);
    }
    cluster_barrier(plan.cluster);
    if (active) {
      dh = 0.0f;
      for (int source = 0; source < plan.cluster && !starts; ++source) {
        dh += partials[buffer + (source * kRows + row) * plan.slice + local];
      }
    }
  }
  if (!active) return;
  if (p.dh0 != nullptr) p.dh0[at.state] = dh;
  if (p.dc0 != nullptr) p.dc0[at.state] = dc;
  if (p.dn0 != nullptr) p.dn0[at.state] = dn;
}

// False if the GPU has no room for a cluster.
bool run_resident(const cuda::Stream& stream, const BackwardPointers<float>& p,
                  const ResidentPlan& plan) {
  const std::int64_t blocks = p.n.heads * ((p.n.batch + plan.rows - 1) / plan.rows) * plan.cluster;
  const cuda::LaunchShape shape{.grid = cuda::grid_size(blocks, 1),
                                .block = static_cast<unsigned>(plan.backward_threads),
                                .shared_bytes = backward_shared_bytes(plan),
                                .cluster = static_cast<unsigned>(plan.cluster)};
  const auto run = [&](auto kernel) {
    return cuda::launch_if_cluster_fits("slstm_bwd", stream, shape, kernel, p, plan);
  };
  // Small blocks leave each thread twice the registers.
  const auto run_rows = [&]<int kRows>() {
    if (plan.backward_threads <= kMaxThreads / 2) {
      return run(slstm_bwd_kernel<kRows, kMaxThreads / 2>);
    }
    return run(slstm_bwd_kernel<kRows, kMaxThreads>);
  };
  if (plan.rows == 1) return run_rows.template operator()<1>();
  if (plan.rows == 2) return run_rows.template operator()<2>();
  return run_rows.template operator()<4>();
}

// All but dr and db.
void walk(const cuda::Stream& stream, const CellBackwardArgs& args) {
  if (args.dh.dtype() == DType::kBF16) {
    if (!backward_mma(stream, args)) backward_stepwise(stream, args);
    return;
  }
  if (args.dh.dtype() == DType::kF32) {
    const Sizes n = Sizes::of(args.dh);
    const auto plan = resident_plan(n.batch, n.heads, n.size, stream.info().multiprocessors,
                                    stream.info().clusters);
    if (plan && run_resident(stream, BackwardPointers<float>(args), *plan)) return;
  }
  backward_stepwise(stream, args);  // which refuses other dtypes
}

void backward(const CellBackwardArgs& caller) {
  const cuda::Stream stream(caller.dh.device());
  const CellBackwardArgs args = with_gate_gradients(caller);
  walk(stream, args);
  accumulate_parameter_gradients(stream, args);
}

}  // namespace

void register_cuda_backward() { cell_bwd.set(DeviceType::kCuda, backward); }

}  // namespace carousel::slstm
