#include "layers/mlstm/cuda/hopper_walk.cuh"

namespace carousel::mlstm::cuda {

void launch_walk_bwd(const carousel::cuda::Stream& stream, const Problem& p, const WalkPlan& plan,
                     const WalkArgs& args, void* scratch) {
  walk::launch_walk<false>(stream, p, plan, args, scratch);
}

}  // namespace carousel::mlstm::cuda
