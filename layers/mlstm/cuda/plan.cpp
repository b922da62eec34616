#include "layers/mlstm/cuda/plan.h"

#include <initializer_list>

namespace carousel::mlstm::cuda {
namespace {

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Time of one block of tokens in one CTA, in units of 2^20 multiply-adds: its products, and what a
// block costs besides (barriers, exponentials, waiting for the copy engine).
double block_cost(int dqk, int tiles, bool states_only) {
  const double unit = 64.0 * 64.0 * 64.0 / (1 << 20);
  const double update = 2.0 * tiles * (dqk / 64.0);
  const double rest = dqk / 64.0 + 2.0 * tiles + update;
  return unit * (update + (states_only ? 0.0 : rest)) + (states_only ? 1.0 : 2.0);
}

double cost(const Problem& p, const WalkPlan& plan, int multiprocessors) {
  const int ctas = p.units() * plan.slices;
  const double rounds = ceil_div(ctas * plan.segments, multiprocessors);
  double total = rounds * plan.blocks_per_segment * block_cost(plan.dqk, plan.tiles, false);
  if (plan.segments > 1) {
    total += ceil_div(ctas * (plan.segments - 1), multiprocessors) * plan.blocks_per_segment *
             block_cost(plan.dqk, plan.tiles, true);
  }
  return total;
}

}  // namespace

int pick_cluster(int ctas, const ClusterCapacity& capacity) {
  int best = 1;
  double best_cost = 0.0;
  for (const int size : kClusterSizes) {
    const int at_once = size * capacity[static_cast<std::size_t>(size)];
    if (at_once == 0) continue;
    // Measured: a block takes 1.4 times as long where every CTA copies q and k for itself.
    const double cost = ceil_div(ctas, at_once) * (size == 4 ? 1.0 : size == 2 ? 1.1 : 1.4);
    if (best_cost == 0.0 || cost < best_cost) {
      best = size;
      best_cost = cost;
    }
  }
  return best;
}

bool hopper_takes(int dqk, int dv) { return dqk <= 256 && dqk % 8 == 0 && dv % 8 == 0; }

WalkPlan plan_walk(const Problem& p, int multiprocessors) {
  const int dqk = p.dqk <= 64 ? 64 : p.dqk <= 128 ? 128 : 256;
  WalkPlan best;
  double best_cost = 0.0;
  for (const int tiles : {1, 2}) {
    if (tiles == 2 && (dqk == 256 || p.dv <= 128)) continue;  // registers; an idle half
    for (const int segments : {1, 2, 3, 4, 6, 8, 12, 16}) {
      WalkPlan plan{.dqk = dqk, .tiles = tiles, .slices = ceil_div(p.dv, 128 * tiles)};
      // Whole chunks a segment, so that states are saved at chunk borders.
      plan.blocks_per_segment = kChunkBlocks * ceil_div(p.chunks(), segments);
      plan.segments = ceil_div(p.blocks, plan.blocks_per_segment);
      if (plan.segments != segments) continue;
      const double c = cost(p, plan, multiprocessors);
      if (best.slices == 0 || c < best_cost) {
        best = plan;
        best_cost = c;
      }
    }
  }
  return best;
}

}  // namespace carousel::mlstm::cuda
