#include "core/kernels/optimizer.h"

#include <cmath>

#include "core/base/parallel.h"
#include "core/cpu/dispatch.h"
#include "core/cpu/kernels.h"
#include "core/cpu/reduce.h"

namespace carousel::cpu {
namespace {

void sum_of_squares_kernel(const SumOfSquaresArgs& args) {
  dispatch_floating("sum_of_squares", args.x.dtype(), [&]<class T>() {
    const T* x = args.x.data<T>();
    *args.out.data<double>() = ordered_sum(args.x.numel(), [x](std::int64_t i) {
      const auto value = static_cast<double>(static_cast<compute_t<T>>(x[i]));
      return value * value;
    });
  });
}

template <class C>
void adamw_update(const AdamWArgs& args) {
  C* master = args.master.data<C>();
  const C* grad = args.grad.data<C>();
  C* m = args.m.data<C>();
  C* v = args.v.data<C>();
  bfloat16* compute = args.compute.data_or_null<bfloat16>();
  const double norm = std::sqrt(*args.grad_norm2.data<double>());
  if (!std::isfinite(norm)) return;
  const auto scale = static_cast<C>(args.clip > 0 ? std::min(1.0, args.clip / (norm + 1e-6)) : 1.0);
  const auto t = static_cast<double>(args.step);
  const auto step_size = static_cast<C>(args.lr / (1.0 - std::pow(args.beta1, t)));
  const auto v_scale = static_cast<C>(1.0 / std::sqrt(1.0 - std::pow(args.beta2, t)));
  const auto beta1 = static_cast<C>(args.beta1);
  const auto beta2 = static_cast<C>(args.beta2);
  const auto one_minus_beta1 = static_cast<C>(1.0 - args.beta1);
  const auto one_minus_beta2 = static_cast<C>(1.0 - args.beta2);
  const auto eps = static_cast<C>(args.eps);
  for (const AdamWSegment& s : args.segments) {
    const auto keep = static_cast<C>(1.0 - args.lr * s.weight_decay);
    parallel_for(s.end - s.begin, kElementwiseGrain, [&](std::int64_t from, std::int64_t to) {
#pragma omp simd
      for (std::int64_t i = s.begin + from; i < s.begin + to; ++i) {
        const C g = scale * grad[i];
        m[i] = beta1 * m[i] + one_minus_beta1 * g;
        v[i] = beta2 * v[i] + one_minus_beta2 * g * g;
        master[i] = keep * master[i] - step_size * m[i] / (std::sqrt(v[i]) * v_scale + eps);
      }
      if (compute != nullptr) {
#pragma omp simd
        for (std::int64_t i = s.begin + from; i < s.begin + to; ++i) {
          compute[i] = round_to<bfloat16>(static_cast<float>(master[i]));
        }
      }
    });
  }
}

void adamw_kernel(const AdamWArgs& args) {
  if (args.master.dtype() == DType::kF64) return adamw_update<double>(args);
  adamw_update<float>(args);
}

}  // namespace

void register_optimizer() {
  sum_of_squares.set(DeviceType::kCpu, sum_of_squares_kernel);
  adamw.set(DeviceType::kCpu, adamw_kernel);
}

}  // namespace carousel::cpu
