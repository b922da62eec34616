#include "layers/mlstm/cuda/call.h"

#include <cmath>
#include <limits>

#include "layers/mlstm/cuda/choice.h"
#include "layers/mlstm/cuda/hopper_walk.h"
#include "layers/mlstm/cuda/scan.h"

namespace carousel::mlstm::cuda {

Problem problem_of(const CellInputs& in) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int32_t>::max();
  const std::int64_t batch = in.q.dim(0), time = in.q.dim(1), heads = in.q.dim(2);
  const std::int64_t dqk = in.q.dim(3), dv = in.v.dim(3);
  const std::int64_t blocks = (time + kChunk - 1) / kChunk * kChunkBlocks;
  if (batch * heads * blocks * kBlock > kMax || dqk * dv > kMax) {
    throw UsageError(
        "[mlstm_cell] q {} and v {} on {}: batch · time · heads and dqk · dv may not exceed {}; "
        "use "
        "smaller batches or pass the state from one part of the sequence to the next",
        in.q.shape(), in.v.shape(), to_string(in.q.device()), kMax);
  }
  Problem p;
  p.batch = static_cast<int>(batch);
  p.time = static_cast<int>(time);
  p.heads = static_cast<int>(heads);
  p.dqk = static_cast<int>(dqk);
  p.dv = static_cast<int>(dv);
  p.blocks = static_cast<int>(blocks);
  p.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(dqk)));
  return p;
}

GateInputs gate_inputs(const CellInputs& in) {
  return {.i = data<float>(in.i),
          .f = data<float>(in.f),
          .reset = in.reset.data_or_null<std::uint8_t>(),
          .m0 = data_or_null<float>(in.m0),
          .exponential = in.gate == InputGate::kExponential};
}

bool uses_hopper(const carousel::cuda::Stream& stream, const CellInputs& in,
                 std::initializer_list<const Tensor*> others) {
  if (most_special < Kernels::kHopper || stream.info().major != 9 || in.q.dtype() != DType::kBF16)
    return false;
  if (!hopper_takes(static_cast<int>(in.q.dim(3)), static_cast<int>(in.v.dim(3)))) return false;
  const auto aligned = [](const Tensor& t) {
    return !t.defined() || carousel::cuda::aligned16(t.raw());
  };
  if (!aligned(in.q) || !aligned(in.k) || !aligned(in.v)) return false;
  for (const Tensor* t : others) {
    if (!aligned(*t)) return false;
  }
  return true;
}

void check_scan_sizes(const Problem& p) {
  if (p.dqk > kMaxScanColumns || p.dv > kMaxScanColumns) {
    throw UsageError(
        "[mlstm_cell] the recurrent form on CUDA takes head sizes up to {}, got dqk {} and dv {}; "
        "use "
        "the chunkwise form",
        kMaxScanColumns, p.dqk, p.dv);
  }
}

}  // namespace carousel::mlstm::cuda
