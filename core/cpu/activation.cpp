#include "core/kernels/activation.h"

#include "core/base/math.h"
#include "core/base/parallel.h"
#include "core/cpu/dispatch.h"
#include "core/cpu/kernels.h"

namespace carousel::cpu {
namespace {

void soft_cap_forward(const SoftCapForwardArgs& args) {
  dispatch_floating("soft_cap_fwd", args.x.dtype(), [&]<class T>() {
    using C = compute_t<T>;
    const T* x = args.x.data<T>();
    T* y = args.y.data<T>();
    const auto cap = static_cast<C>(args.cap);
    parallel_for(args.x.numel(), kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        y[i] = round_to<T>(cap * math::tanh(static_cast<C>(x[i]) / cap));
      }
    });
  });
}

void soft_cap_backward(const SoftCapBackwardArgs& args) {
  dispatch_floating("soft_cap_bwd", args.y.dtype(), [&]<class T>() {
    using C = compute_t<T>;
    const T* y = args.y.data<T>();
    const T* dy = args.dy.data<T>();
    T* dx = args.dx.data<T>();
    const auto inverse = static_cast<C>(1.0 / args.cap);
    parallel_for(args.y.numel(), kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const C t = static_cast<C>(y[i]) * inverse;
        dx[i] = round_to<T>(static_cast<C>(dy[i]) * (C{1} - t * t));
      }
    });
  });
}

// φ(x) and φ'(x).
template <class C>
struct ValueAndSlope {
  C value, slope;
};

struct Silu {
  template <class C>
  ValueAndSlope<C> operator()(C x) const {
    const C s = math::sigmoid(x);
    return {x * s, s * (C{1} + x * (C{1} - s))};
  }
};

struct Sigmoid {
  template <class C>
  ValueAndSlope<C> operator()(C x) const {
    const C s = math::sigmoid(x);
    return {s, s * (C{1} - s)};
  }
};

struct Gelu {
  template <class C>
  ValueAndSlope<C> operator()(C x) const {
    const math::Normal<C> normal = math::normal(x);
    return {x * normal.cdf, normal.cdf + x * normal.density};
  }
};

template <class F>
void dispatch_activation(Activation activation, F&& f) {
  switch (activation) {
    case Activation::kSilu:
      return f(Silu{});
    case Activation::kGelu:
      return f(Gelu{});
    case Activation::kSigmoid:
      return f(Sigmoid{});
  }
}

void gated_forward(const GatedForwardArgs& args) {
  dispatch_floating("gated_fwd", args.gate.dtype(), [&]<class T>() {
    dispatch_activation(args.activation, [&](auto phi) {
      using C = compute_t<T>;
      const T* gate = args.gate.data<T>();
      const T* up = args.up.data<T>();
      T* y = args.y.data<T>();
      parallel_for(args.y.numel(), kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) {
          y[i] = round_to<T>(phi(static_cast<C>(gate[i])).value * static_cast<C>(up[i]));
        }
      });
    });
  });
}

void gated_backward(const GatedBackwardArgs& args) {
  dispatch_floating("gated_bwd", args.gate.dtype(), [&]<class T>() {
    dispatch_activation(args.activation, [&](auto phi) {
      using C = compute_t<T>;
      const T* gate = args.gate.data<T>();
      const T* up = args.up.data<T>();
      const T* dy = args.dy.data<T>();
      T* dgate = args.dgate.data<T>();
      T* dup = args.dup.data<T>();
      parallel_for(args.gate.numel(), kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) {
          const ValueAndSlope<C> p = phi(static_cast<C>(gate[i]));
          const C d = static_cast<C>(dy[i]);
          dgate[i] = round_to<T>(d * static_cast<C>(up[i]) * p.slope);
          dup[i] = round_to<T>(d * p.value);
        }
      });
    });
  });
}

}  // namespace

void register_activation() {
  soft_cap_fwd.set(DeviceType::kCpu, soft_cap_forward);
  soft_cap_bwd.set(DeviceType::kCpu, soft_cap_backward);
  gated_fwd.set(DeviceType::kCpu, gated_forward);
  gated_bwd.set(DeviceType::kCpu, gated_backward);
}

}  // namespace carousel::cpu
