// How the resident kernels are laid over the GPU: pure host code, tested without one.
//
// A cluster of blocks serves one head and a few batch rows through all time steps. Each block keeps
// its slice of the head's dimensions: the rows of R (4 gates × slice × D, float32) live in
// registers, 64 a thread, for the whole sequence; what a step exchanges between blocks goes through
// distributed shared memory.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>

namespace carousel::slstm {

inline constexpr int kSegment = 16;  ///< inputs of a product that one thread multiplies
inline constexpr int kSegmentStride =
    20;                                  ///< floats from one segment to the next in shared memory:
                                         ///< 8 lanes then read 16 bytes each from all 32 banks
inline constexpr int kMaxThreads = 512;  ///< 64 registers of R and as many for the rest
inline constexpr int kMaxCluster = 8;    ///< the portable limit
inline constexpr int kSavedFloats = 7;   ///< what the backward reads of an element and step, …
inline constexpr int kStepsAhead = 4;    ///< … copied to shared memory in as many steps at once
inline constexpr int kMaxRows = 4;       ///< batch rows of a cluster

struct ResidentPlan {
  int cluster = 1;         ///< blocks that share a head
  int slice = 0;           ///< dimensions of a block, a multiple of 4; cluster · slice >= D
  int rows = 1;            ///< batch rows of a cluster: 1, 2 or 4
  int forward_lanes = 0;   ///< threads that share one dimension's product (a power of two, <= 32)
  int backward_lanes = 0;  ///< threads that share four dimensions' product in the backward
  int forward_threads = 0, backward_threads = 0;
};

namespace detail {
inline int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

// Lanes for n inputs; at least kMaxRows, so that every batch row ends in lanes of its own.
inline int lanes_for(int n) {
  return std::max(
      kMaxRows,
      static_cast<int>(std::bit_ceil(static_cast<unsigned>((n + kSegment - 1) / kSegment))));
}
}  // namespace detail

/// The plan for heads of `size` dimensions, or nothing if R does not fit on chip: size <= 64 on any
/// GPU, <= 256 where the GPU has clusters. `batch` and `heads` choose the rows: few while the GPU
/// has multiprocessors to spare, more to avoid a second wave of blocks.
inline std::optional<ResidentPlan> resident_plan(std::int64_t batch, std::int64_t heads,
                                                 std::int64_t size, int multiprocessors,
                                                 bool has_clusters) {
  constexpr std::int64_t kLargest = 256;
  if (size < 1 || size > kLargest) return std::nullopt;
  const int n = static_cast<int>(size);
  ResidentPlan plan;
  plan.forward_lanes = detail::lanes_for(n);
  const int most = kMaxThreads / plan.forward_lanes;  // dimensions that fit in one block
  plan.cluster = (n + most - 1) / most;
  if (plan.cluster > (has_clusters ? kMaxCluster : 1)) return std::nullopt;
  plan.slice = detail::round_up((n + plan.cluster - 1) / plan.cluster, 4);
  plan.backward_lanes = detail::lanes_for(4 * plan.slice);

  // A step costs about one unit of waiting and half a unit a row; what does not fit on the GPU at
  // once runs in waves.
  const int clusters = std::max(1, multiprocessors / plan.cluster);
  double least = 0.0;
  for (const int rows : {1, 2, kMaxRows}) {
    const std::int64_t units = heads * ((batch + rows - 1) / rows);
    const double cost = static_cast<double>((units + clusters - 1) / clusters) * (1.0 + 0.5 * rows);
    if (least == 0.0 || cost < least) {
      least = cost;
      plan.rows = rows;
    }
  }
  const int cells = plan.slice * plan.rows;
  plan.forward_threads = detail::round_up(std::max(plan.slice * plan.forward_lanes, cells), 32);
  const int products = plan.cluster * plan.slice / 4 * plan.backward_lanes;
  plan.backward_threads = detail::round_up(std::max(products, cells), 32);
  return plan;
}

/// Bytes of shared memory of a block.
inline std::size_t forward_shared_bytes(const ResidentPlan& plan) {
  const int inputs = 2 * plan.rows * plan.forward_lanes * kSegmentStride;
  const int products = plan.rows * 4 * plan.slice;
  return sizeof(float) * static_cast<unsigned>(inputs + products);
}
inline std::size_t backward_shared_bytes(const ResidentPlan& plan) {
  const int gates = plan.rows * plan.backward_lanes * kSegmentStride;
  const int partials = 2 * plan.cluster * plan.rows * plan.slice;
  const int saved = kStepsAhead * kSavedFloats * plan.rows * plan.slice;
  return sizeof(float) * static_cast<unsigned>(gates + partials + saved);
}

}  // namespace carousel::slstm
