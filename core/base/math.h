// Scalar functions that the compiler can vectorise: branch-free polynomials instead of calls into
// libm, so that they also give the same bits on every machine. float64 goes to libm: it is used
// in references and gradient checks only.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace carousel::math {

/// e^x, relative error below 2 ulp; 0 below -87.34 (no denormals), infinity above 88.72, NaN for
/// NaN. Range reduction x = n·ln2 + r with ln2 split in two (Cody–Waite), then a degree-6
/// polynomial on |r| <= ln2/2.
inline float exp(float x) {
  const float clamped = std::min(std::max(x, -87.33654f), 88.72284f);
  const float n = std::floor(clamped * 1.44269504f + 0.5f);
  const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float y = (p * r * r + r) + 1.0f;
  // 2^n in two factors: n reaches 128, one more than the largest exponent.
  const auto half = static_cast<std::int32_t>(n) >> 1;
  const auto rest = static_cast<std::int32_t>(n) - half;
  const float scale = std::bit_cast<float>((half + 127) << 23);
  const float result = y * scale * std::bit_cast<float>((rest + 127) << 23);
  const float low = x < -87.33654f ? 0.0f : result;
  const float high = x > 88.72284f ? INFINITY : low;
  return x != x ? x : high;
}
inline double exp(double x) { return std::exp(x); }

/// 1/(1+e^-x).
template <class T>
inline T sigmoid(T x) {
  return T{1} / (T{1} + exp(-x));
}

/// tanh x; near zero by an odd polynomial to keep the relative error small.
inline float tanh(float x) {
  const float a = std::min(std::abs(x), 10.0f);
  const float e = exp(2.0f * a);
  const float large = 1.0f - 2.0f / (e + 1.0f);
  const float s = a * a;
  float p = -5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  const float small = a + a * s * p;
  const float magnitude = a < 0.625f ? small : large;
  return x != x ? x : std::copysign(magnitude, x);
}
inline double tanh(double x) { return std::tanh(x); }

/// log(1+x) for 0 <= x <= 1, relative error below 3 ulp: 2·artanh(s) with s = x/(2+x) <= 1/3, by
/// its series.
inline float log1p_unit(float x) {
  const float s = x / (2.0f + x);
  const float u = s * s;
  float p = 1.0f / 13.0f;
  p = p * u + 1.0f / 11.0f;
  p = p * u + 1.0f / 9.0f;
  p = p * u + 1.0f / 7.0f;
  p = p * u + 1.0f / 5.0f;
  p = p * u + 1.0f / 3.0f;
  return 2.0f * (s + s * u * p);
}
inline double log1p_unit(double x) { return std::log1p(x); }

/// log(sigmoid(x)) = min(x, 0) − log1p(e^−|x|), exact in both tails.
template <class T>
inline T log_sigmoid(T x) {
  return std::min(x, T{0}) - log1p_unit(exp(-std::abs(x)));
}

/// Φ(x), the standard normal distribution function, and its density φ(x), by which GELU and its
/// derivative are made; they share one exponential.
template <class T>
struct Normal {
  T cdf, density;
};
/// Φ(−a) = e^(−a²/2)·t·P(t) with t = 1/(1 + a/4), for a >= 0, where P is fitted to a relative error
/// of 2e-8; Φ is within 2^−22 absolutely, and within 1e-6 of itself for |x| < 4.
inline Normal<float> normal(float x) {
  const float a = std::abs(x);
  const float e = exp(-0.5f * x * x);
  const float t = 1.0f / (1.0f + 0.25f * a);
  float p = 2.878473597e-2f;
  p = p * t - 1.675080976e-1f;
  p = p * t + 3.260816356e-1f;
  p = p * t - 2.395533760e-1f;
  p = p * t + 2.247224302e-1f;
  p = p * t + 2.330477514e-2f;
  p = p * t + 1.061683001e-1f;
  p = p * t + 9.818277821e-2f;
  p = p * t + 9.981681070e-2f;
  const float tail = e * t * p;
  return {x > 0.0f ? 1.0f - tail : tail, 0.398942280f * e};
}
inline Normal<double> normal(double x) {
  return {0.5 * std::erfc(-x * 0.70710678118654752), 0.39894228040143268 * exp(-0.5 * x * x)};
}

}  // namespace carousel::math
