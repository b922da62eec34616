#include "layers/slstm/cuda/stepwise.h"

#include "core/cuda/gemm.h"
#include "core/cuda/launch.h"
#include "layers/slstm/cuda/pointers.cuh"
#include "layers/slstm/cuda/resident.cuh"

namespace carousel::slstm {
namespace {

constexpr int kThreads = 128;

// Element `index` of a (B, NH, D) tensor at step t.
__device__ Element element(const Sizes& n, std::int64_t index, std::int64_t t) {
  return Element(n, index / (n.heads * n.size), index / n.size % n.heads,
                 static_cast<int>(index % n.size), t);
}

__device__ std::int64_t element_index() {
  return std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
}

// The running state, (B, NH, D) each; in the backward the gradients of h, c and n.
struct Running {
  float *h, *c, *n, *m;
};

template <class T>
__global__ void __launch_bounds__(kThreads) slstm_start_kernel(ForwardPointers<T> p, Running at) {
  const std::int64_t i = element_index();
  if (i >= p.n.batch * p.n.heads * p.n.size) return;
  const ElementState<float> state = p.initial_state(element(p.n, i, 0));
  at.h[i] = p.h0 != nullptr ? p.h0[i] : 0.0f;
  at.c[i] = state.c;
  at.n[i] = state.n;
  at.m[i] = state.m;
}

// recurrent (B, NH, 4, D): R·h of the step before.
template <class T>
__global__ void __launch_bounds__(kThreads)
    slstm_step_fwd_kernel(ForwardPointers<T> p, Running at, const float* recurrent,
                          std::int64_t t) {
  const std::int64_t i = element_index();
  if (i >= p.n.batch * p.n.heads * p.n.size) return;
  const Element e = element(p.n, i, t);
  ElementState<float> state{at.c[i], at.n[i], at.m[i]};
  const bool starts = p.start(e) != 0;
  if (starts) state = {0.0f, 0.0f, -INFINITY};
  float pre[kNumGates];
#pragma unroll
  for (int g = 0; g < kNumGates; ++g) {
    pre[g] = cuda::to_float(p.x[g][e.token]) + p.bias(e, g);
    if (!starts) pre[g] += recurrent[(i / p.n.size * kNumGates + g) * p.n.size + e.d];
  }
  const ElementGates<float> gate = step<DeviceMath>(pre[0], pre[1], pre[2], pre[3], state);
  const float h = gate.o * state.c / state.n;
  p.save(e, h, gate, state);
  at.h[i] = h;
  at.c[i] = state.c;
  at.n[i] = state.n;
  at.m[i] = state.m;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    slstm_step_bwd_kernel(BackwardPointers<T> p, Running at, float* dgates, std::int64_t t) {
  const std::int64_t i = element_index();
  if (i >= p.n.batch * p.n.heads * p.n.size) return;
  const Element e = element(p.n, i, t);
  const bool last = t + 1 == p.n.time;
  float dh = at.h[i];
  if (last) {
    const bool given = p.dh_last != nullptr;
    dh = given ? p.dh_last[i] : 0.0f;
    at.c[i] = given ? p.dc_last[i] : 0.0f;
    at.n[i] = given ? p.dn_last[i] : 0.0f;
  } else if (p.start(e.later(p.n, 1)) != 0) {
    dh = 0.0f;
  }
  const ElementGradients<float> d =
      SavedStep<T>::read(p, e).differentiate(p.state_after(e), dh, at.c[i], at.n[i]);
  const float gradients[kNumGates] = {d.i, d.f, d.z, d.o};
#pragma unroll
  for (int g = 0; g < kNumGates; ++g) {
    dgates[(i / p.n.size * kNumGates + g) * p.n.size + e.d] = gradients[g];
    p.write_dx(e, g, gradients[g]);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    slstm_finish_bwd_kernel(BackwardPointers<T> p, Running at) {
  const std::int64_t i = element_index();
  if (i >= p.n.batch * p.n.heads * p.n.size) return;
  if (p.dh0 != nullptr) p.dh0[i] = p.start(element(p.n, i, 0)) != 0 ? 0.0f : at.h[i];
  if (p.dc0 != nullptr) p.dc0[i] = at.c[i];
  if (p.dn0 != nullptr) p.dn0[i] = at.n[i];
}

// Scratch of `count` float32 tensors of a (B, NH, D) each.
Tensor scratch(const Sizes& n, const cuda::Stream& stream, std::int64_t count) {
  const RoleScope role(Role::kWorkspace);
  return Tensor::empty({count, n.batch * n.heads * n.size}, DType::kF32, stream.device());
}

Running running(const Tensor& t) {
  const std::int64_t size = t.dim(1);
  float* p = t.data<float>();
  return {p, p + size, p + 2 * size, p + 3 * size};
}

}  // namespace

void forward_stepwise(const cuda::Stream& stream, const CellForwardArgs& args) {
  cuda::dispatch_floating("slstm_fwd", args.h.dtype(), [&]<class T>() {
    const ForwardPointers<T> p(args);
    const Tensor state = scratch(p.n, stream, 4);
    const Tensor recurrent = scratch(p.n, stream, kNumGates);
    const Running at = running(state);
    const cuda::LaunchShape shape{.grid = cuda::grid_size(state.dim(1), kThreads),
                                  .block = kThreads};
    const cuda::Gemm product{.m = p.n.batch,
                             .n = kNumGates * p.n.size,
                             .k = p.n.size,
                             .transpose_b = true,
                             .dtype = DType::kF32,
                             .out_dtype = DType::kF32,
                             .lda = p.n.heads * p.n.size,
                             .ldb = p.n.size,
                             .ldc = p.n.heads * kNumGates * p.n.size,
                             .batch = p.n.heads,
                             .stride_a = p.n.size,
                             .stride_b = kNumGates * p.n.size * p.n.size,
                             .stride_c = kNumGates * p.n.size};
    cuda::launch("slstm_start", stream, shape, slstm_start_kernel<T>, p, at);
    for (std::int64_t t = 0; t < p.n.time; ++t) {
      cuda::gemm(stream, product, at.h, p.r, recurrent.raw());
      cuda::launch("slstm_step_fwd", stream, shape, slstm_step_fwd_kernel<T>, p, at,
                   recurrent.data<float>(), t);
    }
  });
}

void backward_stepwise(const cuda::Stream& stream, const CellBackwardArgs& args) {
  cuda::dispatch_floating("slstm_bwd", args.dh.dtype(), [&]<class T>() {
    const BackwardPointers<T> p(args);
    const Tensor gradients = scratch(p.n, stream, 4);
    const Tensor dgates = scratch(p.n, stream, kNumGates);
    const Running at = running(gradients);
    const cuda::LaunchShape shape{.grid = cuda::grid_size(gradients.dim(1), kThreads),
                                  .block = kThreads};
    const cuda::Gemm product{.m = p.n.batch,
                             .n = p.n.size,
                             .k = kNumGates * p.n.size,
                             .dtype = DType::kF32,
                             .out_dtype = DType::kF32,
                             .lda = p.n.heads * kNumGates * p.n.size,
                             .ldb = p.n.size,
                             .ldc = p.n.heads * p.n.size,
                             .batch = p.n.heads,
                             .stride_a = kNumGates * p.n.size,
                             .stride_b = kNumGates * p.n.size * p.n.size,
                             .stride_c = p.n.size};
    for (std::int64_t t = p.n.time - 1; t >= 0; --t) {
      cuda::launch("slstm_step_bwd", stream, shape, slstm_step_bwd_kernel<T>, p, at,
                   dgates.data<float>(), t);
      cuda::gemm(stream, product, dgates.raw(), p.r, at.h);
    }
    cuda::launch("slstm_finish_bwd", stream, shape, slstm_finish_bwd_kernel<T>, p, at);
  });
}

}  // namespace carousel::slstm
