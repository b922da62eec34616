#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace carousel::comm {

/// sum = Σ of `count` vectors of n elements that lie behind one another in `pieces`, pairwise by
/// halves (Sum::kTree); count is a power of two, at most kMaxTreeRanks. Asynchronous on `stream`.
inline constexpr int kMaxTreeRanks = 64;
template <class T>
void tree_sum(const T* pieces, int count, std::int64_t n, T* sum, cudaStream_t stream);

}  // namespace carousel::comm
