// Launch plans: host arithmetic over sizes, without CUDA.
#pragma once

#include <array>

#include "layers/mlstm/cuda/blocks.h"

namespace carousel::mlstm::cuda {

/// How the walk's grid is cut.
struct WalkPlan {
  int dqk = 0;       ///< 64, 128 or 256: columns of the state, DQK rounded up
  int tiles = 0;     ///< 64-row tiles of the state per warpgroup: a CTA keeps 128·tiles rows of DV
  int slices = 0;    ///< CTAs that share a unit's DV
  int segments = 1;  ///< pieces of time that are walked at once, from states found in a first pass
  int blocks_per_segment = 0;
};
/// The fastest cut by a model of rounds over `multiprocessors`.
WalkPlan plan_walk(const Problem& problem, int multiprocessors);
/// CTAs that may share one copy of q and k: neighbouring slices of a unit in one cluster.
inline constexpr int kMaxCluster = 4;
inline constexpr int kClusterSizes[] = {4, 2, 1};
/// How many clusters of each size (the index) the device runs at once; 0 where the size does not
/// fit.
using ClusterCapacity = std::array<int, kMaxCluster + 1>;
/// The cluster size that runs `ctas` CTAs soonest: fewer rounds first, then larger clusters.
int pick_cluster(int ctas, const ClusterCapacity& capacity);

/// Whether the Hopper kernels take these sizes: DQK <= 256, DQK and DV multiples of 8.
bool hopper_takes(int dqk, int dv);

}  // namespace carousel::mlstm::cuda
