// Differentiable elementwise ops.
#pragma once

#include "core/autograd/variable.h"

namespace carousel {

/// a + b, equal shapes and dtypes. Throws UsageError otherwise.
Variable add(const Variable& a, const Variable& b);
/// x in another floating dtype; x itself if it has it already.
Variable to_dtype(const Variable& x, DType dtype);
/// alpha·x.
Variable scaled(const Variable& x, double alpha);
/// Inverted dropout with probability 0 <= p < 1 under the next random key of this thread (see
/// random.h); x itself if p is 0. Draws a key even under NoGrad.
Variable apply_dropout(const Variable& x, double p);
/// The same elements under another shape.
Variable reshape(const Variable& x, const Shape& shape);
/// The sum of all elements, () in x's dtype (f32 or f64); summed in float64, deterministic.
Variable sum(const Variable& x);

}  // namespace carousel
