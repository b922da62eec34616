#include "core/kernels/activation.h"

#include "core/cuda/kernels.h"
#include "core/cuda/map.cuh"

namespace carousel::cuda {
namespace {

struct SoftCap {
  static constexpr bool kUpdates = false;
  float cap, inverse;
  __device__ void operator()(const float (&in)[1], float (&out)[1]) const {
    out[0] = cap * fast_tanh(in[0] * inverse);
  }
};
struct SoftCapGradient {
  static constexpr bool kUpdates = false;
  float inverse;
  __device__ void operator()(const float (&in)[2], float (&out)[1]) const {
    const float t = in[0] * inverse;
    out[0] = in[1] * (1.0f - t * t);
  }
};

// value() is φ(x); slope() is φ'(x) and puts φ(x) into y.
struct Silu {
  static __device__ float value(float x) { return x * fast_sigmoid(x); }
  static __device__ float slope(float x, float& y) {
    const float s = fast_sigmoid(x);
    y = x * s;
    return s + y * (1.0f - s);
  }
};
struct Gelu {
  static __device__ float phi(float x) { return 0.5f + 0.5f * erff(x * 0.70710678f); }
  static __device__ float value(float x) { return x * phi(x); }
  static __device__ float slope(float x, float& y) {
    const float p = phi(x);
    y = x * p;
    return p + x * 0.39894228f * __expf(-0.5f * x * x);
  }
};
struct Sigmoid {
  static __device__ float value(float x) { return fast_sigmoid(x); }
  static __device__ float slope(float x, float& y) {
    y = fast_sigmoid(x);
    return y * (1.0f - y);
  }
};

template <class Phi>
struct Gated {
  static constexpr bool kUpdates = false;
  __device__ void operator()(const float (&in)[2], float (&out)[1]) const {
    out[0] = Phi::value(in[0]) * in[1];
  }
};
// in: gate, up, dy; out: dgate, dup.
template <class Phi>
struct GatedGradient {
  static constexpr bool kUpdates = false;
  __device__ void operator()(const float (&in)[3], float (&out)[2]) const {
    float y;
    const float slope = Phi::slope(in[0], y);
    out[0] = in[2] * in[1] * slope;
    out[1] = in[2] * y;
  }
};

template <class F>
void dispatch_activation(Activation activation, F&& f) {
  switch (activation) {
    case Activation::kSilu:
      return f.template operator()<Silu>();
    case Activation::kGelu:
      return f.template operator()<Gelu>();
    case Activation::kSigmoid:
      return f.template operator()<Sigmoid>();
  }
}

void soft_cap_forward(const SoftCapForwardArgs& args) {
  dispatch_floating("soft_cap_fwd", args.x.dtype(), [&]<class T>() {
    const SoftCap f{static_cast<float>(args.cap), static_cast<float>(1.0 / args.cap)};
    map<T, T>("soft_cap_fwd", f, {args.x}, {args.y});
  });
}

void soft_cap_backward(const SoftCapBackwardArgs& args) {
  dispatch_floating("soft_cap_bwd", args.y.dtype(), [&]<class T>() {
    const SoftCapGradient f{static_cast<float>(1.0 / args.cap)};
    map<T, T>("soft_cap_bwd", f, {args.y, args.dy}, {args.dx});
  });
}

void gated_forward(const GatedForwardArgs& args) {
  dispatch_floating("gated_fwd", args.gate.dtype(), [&]<class T>() {
    dispatch_activation(args.activation, [&]<class Phi>() {
      map<T, T>("gated_fwd", Gated<Phi>{}, {args.gate, args.up}, {args.y});
    });
  });
}

void gated_backward(const GatedBackwardArgs& args) {
  dispatch_floating("gated_bwd", args.gate.dtype(), [&]<class T>() {
    dispatch_activation(args.activation, [&]<class Phi>() {
      map<T, T>("gated_bwd", GatedGradient<Phi>{}, {args.gate, args.up, args.dy},
                {args.dgate, args.dup});
    });
  });
}

}  // namespace

void register_activation() {
  soft_cap_fwd.set(DeviceType::kCuda, soft_cap_forward);
  soft_cap_bwd.set(DeviceType::kCuda, soft_cap_backward);
  gated_fwd.set(DeviceType::kCuda, gated_forward);
  gated_bwd.set(DeviceType::kCuda, gated_backward);
}

}  // namespace carousel::cuda
