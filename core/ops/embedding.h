// Token embedding.
#pragma once

#include "core/autograd/variable.h"

namespace carousel {

/// Rows of weight (V, D): out[…, :] = weight[ids[…], :], ids (…) i32. The gradient of weight
/// accumulates. Ids in host memory are checked: DataError names the first outside [0, V); those on
/// a device must have been checked before they were sent there.
Variable embedding(const Tensor& ids, const Variable& weight);

}  // namespace carousel
