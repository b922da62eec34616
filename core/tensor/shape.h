// Shapes: up to six dimensions, outermost first, stored in place.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include <fmt/ranges.h>

#include "core/base/error.h"

namespace carousel {

class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;  // rank 0: a scalar, one element
  Shape(std::initializer_list<std::int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  /// Throws InternalError on a negative dimension, a rank over kMaxRank or an int64 overflow.
  explicit Shape(std::span<const std::int64_t> dims) {
    CAROUSEL_CHECK(dims.size() <= kMaxRank, "a shape has at most {} dimensions, got {}", kMaxRank,
                   dims.size());
    rank_ = static_cast<int>(dims.size());
    for (int i = 0; i < rank_; ++i) {
      const std::int64_t d = dims[static_cast<std::size_t>(i)];
      CAROUSEL_CHECK(d >= 0, "dimension {} is negative: {}", i, d);
      CAROUSEL_CHECK(!__builtin_mul_overflow(numel_, d, &numel_), "the shape's size overflows");
      dims_[static_cast<std::size_t>(i)] = d;
    }
  }

  int rank() const { return rank_; }
  std::int64_t numel() const { return numel_; }
  /// Dimension i; negative i counts from the innermost.
  std::int64_t operator[](int i) const {
    const int j = i < 0 ? i + rank_ : i;
    CAROUSEL_CHECK(j >= 0 && j < rank_, "dimension {} of a tensor of rank {}", i, rank_);
    return dims_[static_cast<std::size_t>(j)];
  }
  std::span<const std::int64_t> dims() const {
    return {dims_.data(), static_cast<std::size_t>(rank_)};
  }
  bool operator==(const Shape& other) const { return rank_ == other.rank_ && dims_ == other.dims_; }

  /// "(2, 3, 64)".
  std::string to_string() const { return fmt::format("({})", fmt::join(dims(), ", ")); }

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
  std::int64_t numel_ = 1;
};

}  // namespace carousel

template <>
struct fmt::formatter<carousel::Shape> : fmt::formatter<std::string> {
  auto format(const carousel::Shape& shape, fmt::format_context& ctx) const {
    return fmt::formatter<std::string>::format(shape.to_string(), ctx);
  }
};
