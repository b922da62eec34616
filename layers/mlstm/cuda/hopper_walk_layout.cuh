// The walk on Hopper: its parameters, its shared memory, and who meets whom at which barrier.
#pragma once

#include <algorithm>

#include "layers/mlstm/cuda/hopper.cuh"
#include "layers/mlstm/cuda/hopper_walk.h"

namespace carousel::mlstm::cuda::walk {

using namespace hopper;  // NOLINT: the walk is written in its terms

inline constexpr int kThreads = 512;
inline constexpr int kHolderWarps = 8;
inline constexpr int kScorerWarps = 4;
inline constexpr int kMaxShared = 227 << 10;

struct WalkParams {
  CUtensorMap rows, columns, values, out, states;
  Problem p;
  const GateBlock* gates;
  const GradBlock* grads;
  float* normaliser;
  float* sign;
  float eps;
  bool save_states;
  float* state_n;
  const float* c_first;  // one natural state a (unit, segment)
  const float* n_first;
  float* c_last;  // one a (unit, segment) if every segment ends in one, else one a unit
  float* n_last;
  int slices, segments, blocks_per_segment;
  int cluster;  // CTAs that share rows and columns: neighbouring slices of a unit
  bool every_segment_ends;
};

// Shared memory, in bytes from a base that is a multiple of 1024.
template <int dqk, int tiles, bool forward>
struct Layout {
  static constexpr int kPanels = dqk / kPanelColumns;
  static constexpr int kPanel = kBlock * kPanelRowBytes;
  // Forward, n lies below the rows of k, so that one product gives P and q·n.
  static constexpr int kScoreColumns = forward ? kBlock + 8 : kBlock;
  static constexpr int kColumnPanel = kScoreColumns * kPanelRowBytes;
  static constexpr int kRows = 0;
  static constexpr int kColumns = kRows + kPanels * kPanel;
  static constexpr int kValues = kColumns + kPanels * kColumnPanel;
  static constexpr int kStage = kValues + 2 * tiles * kPanel;
  static constexpr int kGates =
      static_cast<int>(sizeof(GateBlock) + (forward ? 0 : sizeof(GradBlock)));
  static constexpr int kGateStage = (kGates + 127) / 128 * 128;
  static constexpr int kScores = kPanel;
  static constexpr int kOut = 2 * 2 * kPanel;  // two panels on their way out a warpgroup
  // 1/N for the holders, N and the denominator's sign for the recorder: of each row, twice.
  static constexpr int kStatistics = forward ? 2 * 3 * kBlock * 4 : 0;
  static constexpr int kFixed = 2 * kScores + kOut + kStatistics + 256;
  static constexpr int kStages = std::min(4, (kMaxShared - 1024 - kFixed) / (kStage + kGateStage));
  static constexpr int kScoresAt = kStages * kStage;
  static constexpr int kOutAt = kScoresAt + 2 * kScores;
  static constexpr int kGatesAt = kOutAt + kOut;
  static constexpr int kStatisticsAt = kGatesAt + kStages * kGateStage;
  static constexpr int kBarriersAt = kStatisticsAt + kStatistics;
  static constexpr int kBytes = kBarriersAt + 256 + 1024;  // and room to align the base
  static_assert(kStages >= 2);
};

struct Barriers {
  std::uint64_t full[4], empty[4], scores_full[2], scores_empty[2];
  std::uint32_t two_parts[2];  // whether rows need the state in two parts, a byte a scorer warp
};

// Everything a warpgroup's role needs to find its data.
template <class L, bool forward>
struct Walk {
  const WalkParams& params;
  std::uint8_t* shared;
  Barriers& barriers;
  int unit, segment, slice, steps;

  __device__ int block(int step) const {
    const int index = segment * params.blocks_per_segment + step;
    return forward ? index : params.p.blocks - 1 - index;
  }
  __device__ std::uint8_t* stage(int s) const { return shared + s * L::kStage; }
  __device__ const GateBlock& gates(int s) const {
    return *reinterpret_cast<const GateBlock*>(shared + L::kGatesAt + s * L::kGateStage);
  }
  __device__ const GradBlock& grads(int s) const {
    return *reinterpret_cast<const GradBlock*>(shared + L::kGatesAt + s * L::kGateStage +
                                               sizeof(GateBlock));
  }
  __device__ std::uint8_t* scores(int buffer) const {
    return shared + L::kScoresAt + buffer * L::kScores;
  }
  __device__ float* inverse(int buffer) const {
    return reinterpret_cast<float*>(shared + L::kStatisticsAt) + buffer * 3 * kBlock;
  }
  __device__ float* normaliser(int buffer) const { return inverse(buffer) + kBlock; }
  __device__ float* sign(int buffer) const { return inverse(buffer) + 2 * kBlock; }
  __device__ std::uint8_t* two_parts(int buffer) const {
    return reinterpret_cast<std::uint8_t*>(&barriers.two_parts[buffer]);
  }
  /// Whether this CTA writes the rows' statistics.
  __device__ bool records() const { return forward && slice == 0 && params.normaliser != nullptr; }
  /// Gives stage s back to every CTA that copies into it; called by whole warps.
  __device__ void release(int s) const {
    warp_arrive_everywhere(&barriers.empty[s], static_cast<unsigned>(params.cluster));
  }
  /// A state is saved at the first block of each chunk in walking order.
  __device__ bool saves(int step) const { return step % kChunkBlocks == 0; }
  __device__ std::int64_t chunk(int step) const {
    return static_cast<std::int64_t>(unit) * params.p.chunks() + block(step) / kChunkBlocks;
  }
  /// Index of the natural state that this CTA ends with; −1 if none.
  __device__ std::int64_t last_state() const {
    const std::int64_t here = static_cast<std::int64_t>(unit) * params.segments + segment;
    if (params.every_segment_ends) return here;
    return segment == params.segments - 1 ? unit : -1;
  }
};

}  // namespace carousel::mlstm::cuda::walk
