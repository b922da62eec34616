// The walk on Hopper: the warp that feeds the copy engine, and the one that writes statistics.
#pragma once

#include "layers/mlstm/cuda/hopper_walk_layout.cuh"

namespace carousel::mlstm::cuda::walk {

template <class L, int tiles, bool forward, bool whole>
__device__ void feed(const Walk<L, forward>& walk) {
  const WalkParams& params = walk.params;
  const int batch = walk.unit / params.p.heads;
  const int head = walk.unit % params.p.heads;
  constexpr unsigned kRowBytes = L::kPanels * L::kPanel;
  constexpr unsigned kBytes = kRowBytes + 2 * tiles * L::kPanel + L::kGates;
  const int rank = params.cluster == 1 ? 0 : static_cast<int>(cluster_rank());
  for (int step = 0; step < walk.steps; ++step) {
    const int s = step % L::kStages;
    const int use = step / L::kStages;
    std::uint64_t* full = &walk.barriers.full[s];
    barrier_wait(&walk.barriers.empty[s], (use + 1) & 1);
    barrier_expect(full, kBytes + (whole ? kRowBytes : 0));
    std::uint8_t* stage = walk.stage(s);
    const int token = walk.block(step) * kBlock;
    const auto share = [&](std::uint8_t* to, const CUtensorMap& map, int column, int row) {
      if (params.cluster == 1) {
        load_box(to, map, full, column, head, row, batch);
      } else {
        load_box_everywhere(to, map, full, (1u << params.cluster) - 1, column, head, row, batch);
      }
    };
    // Each CTA of a cluster brings its share of rows and columns for all.
    for (int panel = rank; panel < L::kPanels; panel += params.cluster) {
      const int column = panel * kPanelColumns;
      share(stage + L::kColumns + panel * L::kColumnPanel, params.columns, column, token);
      if constexpr (whole) {
        share(stage + L::kRows + panel * L::kPanel, params.rows, column, token);
      }
    }
#pragma unroll
    for (int panel = 0; panel < 2 * tiles; ++panel) {
      const int column = (walk.slice * 2 * tiles + panel) * kPanelColumns;
      load_box(stage + L::kValues + panel * L::kPanel, params.values, full, column, head, token,
               batch);
    }
    const std::int64_t index =
        static_cast<std::int64_t>(walk.unit) * params.p.blocks + walk.block(step);
    std::uint8_t* gates = walk.shared + L::kGatesAt + s * L::kGateStage;
    load_bytes(gates, params.gates + index, sizeof(GateBlock), full);
    if constexpr (!forward) {
      load_bytes(gates + sizeof(GateBlock), params.grads + index, sizeof(GradBlock), full);
    }
  }
}

/// One warp writes N and the denominator's sign, off the way of those who wait for the scores.
template <class L>
__device__ void record(const Walk<L, true>& walk, int lane) {
  const WalkParams& params = walk.params;
  for (int step = 0; step < walk.steps; ++step) {
    const int buffer = step & 1;
    barrier_wait(&walk.barriers.scores_full[buffer], (step >> 1) & 1);
#pragma unroll
    for (int row = lane; row < kBlock; row += 32) {
      const int token = walk.block(step) * kBlock + row;
      if (token >= params.p.time) continue;
      const std::int64_t at = params.p.row(walk.unit, token);
      params.normaliser[at] = walk.normaliser(buffer)[row];
      params.sign[at] = walk.sign(buffer)[row];
    }
    warp_arrive(&walk.barriers.scores_empty[buffer]);
  }
}

}  // namespace carousel::mlstm::cuda::walk
