// What h is divided by, and the gradient through it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/base/math.h"

namespace carousel::mlstm {

/// What h is divided by: value = max(|denominator|, e^{−m}) + eps, and the denominator's sign where
/// it decides (else 0).
template <class C>
struct Normaliser {
  C value, sign;

  Normaliser(C denominator, C m, C eps) {
    const C bound = math::exp(-m);
    const C magnitude = std::abs(denominator);
    value = std::max(magnitude, bound) + eps;
    sign = magnitude > bound ? std::copysign(C{1}, denominator) : C{0};
  }
};

/// Splits the gradient of one row h = numerator / N: writes that of the numerator, dh/N, and
/// returns that of the denominator, Δ = −sign·(dh·h)/N.
template <class T, class C>
C split_gradient(const T* dh, const T* h, std::int64_t n, C normaliser, C sign, C* dnumerator) {
  const C inverse = C{1} / normaliser;
  C product{0};
#pragma omp simd reduction(+ : product)
  for (std::int64_t d = 0; d < n; ++d) {
    dnumerator[d] = static_cast<C>(dh[d]) * inverse;
    product += dnumerator[d] * static_cast<C>(h[d]);
  }
  return -sign * product;
}

}  // namespace carousel::mlstm
