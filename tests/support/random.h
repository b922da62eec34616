// Random inputs and error measures for tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "core/base/philox.h"
#include "core/tensor/tensor.h"

namespace carousel::testing {

/// Normal(mean, std) tensor of float or double; a pure function of the seed.
template <class T>
Tensor random_normal(const Shape& shape, std::uint64_t seed, double std = 1.0, double mean = 0.0,
                     Device device = kCpu) {
  std::vector<T> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<T>(mean + std * philox_normal({seed, 0, 0}, i));
  }
  return Tensor::from<T>(values, shape, device);
}

/// The elements of a floating tensor on any device, as doubles.
inline std::vector<double> to_doubles(const Tensor& t) {
  const auto widen = [](const auto& v) {
    std::vector<double> out;
    out.reserve(v.size());
    for (const auto& x : v) out.push_back(static_cast<double>(static_cast<float>(x)));
    return out;
  };
  if (t.dtype() == DType::kF64) return t.to_vector<double>();
  return t.dtype() == DType::kBF16 ? widen(t.to_vector<bfloat16>()) : widen(t.to_vector<float>());
}

/// ‖got − want‖₂ / ‖want‖₂ (the absolute error where want is zero); NaN if anything is NaN, so
/// EXPECT_LE on it fails.
inline double relative_error(const std::vector<double>& got, const std::vector<double>& want) {
  if (got.size() != want.size()) return INFINITY;
  double error2 = 0.0;
  double norm2 = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    error2 += (got[i] - want[i]) * (got[i] - want[i]);
    norm2 += want[i] * want[i];
  }
  return norm2 > 0.0 ? std::sqrt(error2 / norm2) : std::sqrt(error2);
}
inline double relative_error(const Tensor& got, const Tensor& want) {
  return relative_error(to_doubles(got), to_doubles(want));
}

}  // namespace carousel::testing
