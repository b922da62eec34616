// Conversion between floating element types in host memory, for reading and writing checkpoints.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/tensor/dtype.h"

namespace carousel {

/// to[i] = from[i] for n elements; overwrites. Both types are floating, or the same. Rounds to
/// nearest even (f64 to 16 bits by way of f32); too large values become infinite. The buffers must
/// not overlap and need no alignment. In parallel; deterministic. Throws InternalError on types
/// that it cannot convert.
void convert_elements(DType from_dtype, const std::byte* from, DType to_dtype, std::byte* to,
                      std::int64_t n);

}  // namespace carousel
