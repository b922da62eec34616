// What hardware can do at best: the denominator of the model FLOP utilisation.
#pragma once

#include <optional>
#include <string_view>

#include "core/tensor/dtype.h"

namespace carousel {

/// FLOP/s of a GPU by the name that its driver gives it, in dense matrix products with float32
/// sums: bf16 on tensor cores, float32 on the ordinary ones or, as TF32, on tensor cores; NVIDIA's
/// data sheets. Nothing for other names, for CPUs and for other precisions.
std::optional<double> peak_flops(std::string_view device_name, DType precision, bool tf32 = false);

}  // namespace carousel
