// Which kernels of the chunkwise form calls may take.
#pragma once

#include <atomic>

namespace carousel::mlstm::cuda {

enum class Kernels { kTiled, kPipelined, kHopper };

/// The most special ones that calls may take, of those that fit their device, sizes and addresses.
/// Lets tests and benchmarks run on one GPU what others run.
inline std::atomic<Kernels> most_special{Kernels::kHopper};

}  // namespace carousel::mlstm::cuda
