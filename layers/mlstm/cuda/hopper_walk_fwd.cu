#include "layers/mlstm/cuda/hopper_walk.cuh"

namespace carousel::mlstm::cuda {

std::size_t walk_scratch_bytes(const Problem& p, const WalkPlan& plan) {
  if (plan.segments == 1) return 0;
  return static_cast<std::size_t>(p.units()) * static_cast<std::size_t>(plan.segments) *
         static_cast<std::size_t>(p.dqk) * static_cast<std::size_t>(p.dv + 1) * sizeof(float);
}

void launch_walk_fwd(const carousel::cuda::Stream& stream, const Problem& p, const WalkPlan& plan,
                     const WalkArgs& args, void* scratch) {
  walk::launch_walk<true>(stream, p, plan, args, scratch);
}

}  // namespace carousel::mlstm::cuda
