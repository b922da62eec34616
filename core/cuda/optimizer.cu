#include "core/kernels/optimizer.h"

#include <algorithm>
#include <cmath>

#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "core/cuda/kernels.h"
#include "core/cuda/launch.h"

namespace carousel::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector4 = kVector<float>;

struct Segment {
  std::int64_t begin, end;
  float keep;  // 1 − lr·decay
};

// Segments travel in the kernel's parameters, of which there may be 4 KiB.
constexpr int kSegmentsPerLaunch = 128;
constexpr int kVectorsPerThread = 4;
constexpr std::int64_t kTile = std::int64_t{kThreads} * kVectorsPerThread * kVector4;

struct AdamW {
  float *master, *m, *v;
  const float* grad;
  bf16* compute;
  const double* grad_norm2;
  double clip;
  float step_size, v_scale, beta1, beta2, one_minus_beta1, one_minus_beta2, eps;
  int segments;
  Segment segment[kSegmentsPerLaunch];
};

struct Moments {
  float w, m, v;
};

__device__ __forceinline__ void update(const AdamW& p, float keep, float g, Moments& at) {
  at.m = p.beta1 * at.m + p.one_minus_beta1 * g;
  at.v = p.beta2 * at.v + p.one_minus_beta2 * g * g;
  at.w = keep * at.w - p.step_size * at.m / (sqrtf(at.v) * p.v_scale + p.eps);
}

// A block serves one tile of the arenas. Segments start at multiples of 64 elements, so a vector
// that begins inside one lies inside but for its tail, where the segment ends.
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(const __grid_constant__ AdamW p, std::int64_t first) {
  const double norm = sqrt(*p.grad_norm2);
  if (!isfinite(norm)) return;
  const float scale = p.clip > 0.0 ? static_cast<float>(fmin(1.0, p.clip / (norm + 1e-6))) : 1.0f;
  const std::int64_t tile = first + blockIdx.x * kTile;
  int low = 0;  // the first segment that ends behind the tile's start
  for (int high = p.segments; low < high;) {
    const int middle = (low + high) / 2;
    if (p.segment[middle].end > tile) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  for (int k = 0; k < kVectorsPerThread; ++k) {
    const std::int64_t i = tile + (k * kThreads + std::int64_t{threadIdx.x}) * kVector4;
    while (low < p.segments && p.segment[low].end <= i) ++low;
    if (low == p.segments) return;
    const Segment s = p.segment[low];
    if (i < s.begin) continue;
    if (i + kVector4 <= s.end) {
      float w[kVector4], g[kVector4], m[kVector4], v[kVector4];
      load(p.master + i, w);
      load(p.grad + i, g);
      load(p.m + i, m);
      load(p.v + i, v);
#pragma unroll
      for (int e = 0; e < kVector4; ++e) {
        Moments at{w[e], m[e], v[e]};
        update(p, s.keep, scale * g[e], at);
        w[e] = at.w;
        m[e] = at.m;
        v[e] = at.v;
      }
      store(p.master + i, w);
      store(p.m + i, m);
      store(p.v + i, v);
      if (p.compute != nullptr) store(p.compute + i, w);
    } else {
      for (std::int64_t j = i; j < s.end; ++j) {
        Moments at{p.master[j], p.m[j], p.v[j]};
        update(p, s.keep, scale * p.grad[j], at);
        p.master[j] = at.w;
        p.m[j] = at.m;
        p.v[j] = at.v;
        if (p.compute != nullptr) p.compute[j] = from_float<bf16>(at.w);
      }
    }
  }
}

AdamW describe(const AdamWArgs& args) {
  AdamW p{};
  p.master = args.master.data<float>();
  p.m = args.m.data<float>();
  p.v = args.v.data<float>();
  p.grad = args.grad.data<float>();
  p.compute = data_or_null<bf16>(args.compute);
  p.grad_norm2 = args.grad_norm2.data<double>();
  p.clip = args.clip;
  const auto t = static_cast<double>(args.step);
  p.step_size = static_cast<float>(args.lr / (1.0 - std::pow(args.beta1, t)));
  p.v_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(args.beta2, t)));
  p.beta1 = static_cast<float>(args.beta1);
  p.beta2 = static_cast<float>(args.beta2);
  p.one_minus_beta1 = static_cast<float>(1.0 - args.beta1);
  p.one_minus_beta2 = static_cast<float>(1.0 - args.beta2);
  p.eps = static_cast<float>(args.eps);
  CAROUSEL_CHECK(
      aligned16(p.master, p.m, p.v, p.grad) && reinterpret_cast<std::uintptr_t>(p.compute) % 8 == 0,
      "[adamw] arenas must start at multiples of 16 bytes");
  return p;
}

void adamw_arenas(const AdamWArgs& args) {
  const Stream stream(args.master.device());
  AdamW p = describe(args);
  for (std::size_t begin = 0; begin < args.segments.size(); begin += kSegmentsPerLaunch) {
    const std::size_t count =
        std::min<std::size_t>(kSegmentsPerLaunch, args.segments.size() - begin);
    const auto segments = args.segments.subspan(begin, count);
    for (std::size_t i = 0; i < count; ++i) {
      p.segment[i] = {segments[i].begin, segments[i].end,
                      static_cast<float>(1.0 - args.lr * segments[i].weight_decay)};
    }
    p.segments = static_cast<int>(count);
    const std::int64_t first = segments.front().begin;
    launch("adamw", stream, {grid_size(segments.back().end - first, kTile), kThreads}, adamw_kernel,
           p, first);
  }
}

}  // namespace

void register_optimizer() { adamw.set(DeviceType::kCuda, adamw_arenas); }

}  // namespace carousel::cuda
