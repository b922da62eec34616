// What the chunkwise form's CUDA kernels allocate besides results, for plans: meta runs no kernel,
// but counts this. Gates and sums, some floats a token, are left out.
#include "layers/mlstm/planned_memory.h"

#include "layers/mlstm/cuda/blocks.h"
#include "layers/mlstm/cuda/plan.h"
#include "layers/mlstm/kernels.h"

namespace carousel::mlstm {
namespace {

constexpr int kChunkwise = static_cast<int>(Form::kChunkwise);

// States at all chunks' borders, `copies` of them, for as long as the result lives.
Tensor states(const CellInputs& in, int copies) {
  const RoleScope role(Role::kWorkspace);
  const std::int64_t chunks = (in.q.dim(1) + cuda::kChunk - 1) / cuda::kChunk;
  return Tensor::empty({copies, in.q.dim(0) * in.q.dim(2), chunks, in.v.dim(3), in.q.dim(3)},
                       in.q.dtype(), in.q.device());
}

// Whether what rounding leaves of the states is kept, too, as Hopper's kernels need not.
bool keeps_rests(const CellInputs& in) {
  return in.q.dtype() == DType::kBF16 &&
         !cuda::hopper_takes(static_cast<int>(in.q.dim(3)), static_cast<int>(in.v.dim(3)));
}

void forward(const CellForwardArgs& args) {
  if (modelled_type(args.in.q.device()) != DeviceType::kCuda) return;
  const bool hopper = args.in.q.dtype() == DType::kBF16 && !keeps_rests(args.in);
  states(args.in, (keeps_rests(args.in) ? 1 : 0) + (!hopper && !args.c_chunks.defined() ? 1 : 0));
}

void backward(const CellBackwardArgs& args) {
  if (modelled_type(args.in.q.device()) != DeviceType::kCuda) return;
  states(args.in, 1 + (args.c_chunks.defined() ? 0 : 1) +
                      (keeps_rests(args.in) && args.dv.defined() ? 1 : 0));
}

}  // namespace

void register_planned_memory() {
  cell_fwd[kChunkwise].set(DeviceType::kMeta, forward);
  cell_bwd[kChunkwise].set(DeviceType::kMeta, backward);
}

}  // namespace carousel::mlstm
