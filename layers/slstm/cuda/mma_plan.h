// How the bf16 kernels with tensor cores are laid over the GPU: pure host code, tested without one.
//
// A cluster of blocks serves one head and a few batch rows through all time steps. Each block keeps
// its slice of the head's dimensions, whose weights stay on chip for the whole sequence as operands
// of mma: as many in registers as fit, the rest in shared memory. What a step exchanges between
// blocks (h forward, the gates' gradients backward) goes through distributed shared memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "layers/slstm/cuda/plan.h"

namespace carousel::slstm {

inline constexpr int kMmaDepth = 16;      ///< inputs that one mma multiplies: a tile of the product
inline constexpr int kMmaColumns = 8;     ///< batch rows that one mma multiplies
inline constexpr int kMmaUnit = 16;       ///< dimensions that four warps share
inline constexpr int kMmaPad = 8;         ///< bf16 numbers between rows, against bank conflicts
inline constexpr int kWholeCluster = 16;  ///< more than the portable limit, all that Hopper has
inline constexpr int kSplitWarps = 8;     ///< of a split forward's, those that multiply
inline constexpr int kSplitCellThreads = 128;  ///< and the threads that advance the state
inline constexpr int kSplitThreads = kSplitCellThreads + 32 * kSplitWarps;
inline constexpr int kSplitCellRegisters = 120;  ///< of such a thread, …
inline constexpr int kSplitRegisters = 192;      ///< … and of one that multiplies

struct MmaPlan {
  int cluster = 1;  ///< blocks that share a head
  int slice = 0;    ///< dimensions of a block, a multiple of kMmaUnit
  int rows = 1;     ///< batch rows of a cluster
  int padded = 0;   ///< a head's dimensions with room to spare; >= cluster · slice
  int forward_held = 0, backward_held = 0;  ///< tiles of a warp in registers; the backward's are
                                            ///< half as large
  constexpr int threads() const { return slice * kMmaColumns; }
  constexpr int elements() const { return slice * rows; }  ///< of the state in a block
  constexpr int warps() const { return threads() / 32; }
  /// Whether the forward has warps that only multiply and others that only advance the state.
  constexpr bool splits_forward() const { return cluster == kWholeCluster; }
  /// Threads of a split forward that have an element, or two.
  constexpr int split_cells() const { return slice * std::min(rows, 2); }
  /// Tiles of one warp in all: half of a head's inputs forward, one gate's backward.
  constexpr int forward_tiles() const { return padded / kMmaDepth / 2; }
  constexpr int backward_tiles() const { return padded / kMmaDepth; }
};

/// The plan for heads of `size` dimensions, or nothing if R does not fit on chip: size <= 64 on any
/// GPU, <= 768 where the GPU has clusters. A step takes about as long for many rows as for one, so
/// that rows are few while the GPU has room for all clusters at once.
inline std::optional<MmaPlan> mma_plan(std::int64_t batch, std::int64_t heads, std::int64_t size,
                                       int multiprocessors, bool has_clusters) {
  constexpr std::int64_t kLargest = 768;
  if (size < 1 || size > kLargest || (size > 64 && !has_clusters)) return std::nullopt;
  const int n = static_cast<int>(size);
  MmaPlan plan;
  int most_rows = kMmaColumns;
  if (n <= 64) {
    plan = {.cluster = 1,
            .slice = detail::round_up(n, kMmaUnit),
            .padded = 64,
            .forward_held = 2,
            .backward_held = 4};
  } else if (n <= 256) {
    plan = {.cluster = detail::round_up(n, 32) / 32,
            .slice = 32,
            .padded = n <= 128 ? 128 : 256,
            .forward_held = n <= 128 ? 4 : 8,
            .backward_held = n <= 128 ? 8 : 16};
  } else {
    const int slice = n <= 512 ? 32 : 48;
    plan = {.cluster = kWholeCluster,
            .slice = slice,
            .padded = kWholeCluster * slice,
            .forward_held = n <= 512 ? 16 : 12,
            .backward_held = 24};
    most_rows = 4;  // all gates' gradients of more rows do not fit beside the weights
  }
  // Clusters of 16 need nearly a whole graphics cluster each, some of which are short of
  // multiprocessors: count on three quarters.
  int resident = multiprocessors / plan.cluster;
  if (plan.cluster > kMaxCluster) resident = resident * 3 / 4;
  plan.rows = most_rows;
  while (plan.rows > 1) {
    const int fewer = plan.rows / 2;
    if (heads * ((batch + fewer - 1) / fewer) > resident) break;
    plan.rows = fewer;
  }
  return plan;
}

/// Numbers from one batch row to the next of the exchanged buffers, and of sums on their way from
/// those who multiply to those who go on with them.
constexpr int mma_forward_pitch(int padded) { return padded + kMmaPad; }
constexpr int mma_backward_pitch(int padded) { return 4 * padded + kMmaPad; }
constexpr int mma_sums_pitch(int slice) { return slice + 4; }

/// Bytes of shared memory of a block, in the order of its parts: two barriers, weights that are not
/// in registers, sums, h or gate gradients twice, and the backward's ring.
inline std::size_t mma_forward_shared_bytes(const MmaPlan& plan) {
  const bool split = plan.splits_forward();
  const int tile = split ? plan.slice * kMmaDepth * 2 : 1024;  // of one gate, or of four gates of 8
  const int spilled =
      (plan.forward_tiles() - plan.forward_held) * tile * (split ? kSplitWarps : plan.warps());
  const int sums = 4 * 8 * plan.rows * mma_sums_pitch(plan.slice);
  const int h = 2 * 2 * plan.rows * mma_forward_pitch(plan.padded);
  return static_cast<std::size_t>(16 + spilled + sums + h);
}
inline std::size_t mma_backward_shared_bytes(const MmaPlan& plan) {
  const int spilled = (plan.backward_tiles() - plan.backward_held) * 512 * plan.warps();
  const int sums = 4 * 4 * plan.rows * mma_sums_pitch(plan.slice);
  const int gradients = 2 * 2 * plan.rows * mma_backward_pitch(plan.padded);
  const int saved = 4 * kStepsAhead * kSavedFloats * plan.elements();
  return static_cast<std::size_t>(16 + spilled + sums + gradients + saved);
}

}  // namespace carousel::slstm
