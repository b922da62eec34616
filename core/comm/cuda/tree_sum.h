#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

namespace carousel::comm {

/// sum = Σ of vectors of n elements, float or double, pairwise by halves (Sum::kTree); what is
/// missing to a power of two of them counts as zeros. At most kMaxTreeRanks; `sum` may be one of
/// them. Asynchronous on `stream`.
inline constexpr int kMaxTreeRanks = 64;
template <class T>
void tree_sum(const std::vector<const void*>& vectors, std::int64_t n, T* sum, cudaStream_t stream);

}  // namespace carousel::comm
