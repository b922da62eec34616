// What the forward and the backward of the cell share on the host: sizes, gates, workspace, and
// which kernels take a call.
#pragma once

#include <initializer_list>

#include "core/cuda/dispatch.h"
#include "core/cuda/stream.h"
#include "layers/mlstm/cuda/blocks.h"
#include "layers/mlstm/cuda/gates.h"
#include "layers/mlstm/kernels.h"

namespace carousel::mlstm::cuda {

using carousel::cuda::data;
using carousel::cuda::data_or_null;

/// Sizes of a call. Throws UsageError where they exceed what the kernels index.
Problem problem_of(const CellInputs& in);

GateInputs gate_inputs(const CellInputs& in);

/// Uninitialised scratch for `count` elements of T; it may be dropped once the kernels that use it
/// are launched, as memory is reused in stream order.
template <class T>
Tensor workspace(Device device, std::int64_t count) {
  const RoleScope role(Role::kWorkspace);
  return Tensor::empty({count * static_cast<std::int64_t>(sizeof(T))}, DType::kU8, device);
}
template <class T>
T* pointer(const Tensor& t) {
  return t.defined() ? static_cast<T*>(t.raw()) : nullptr;
}

/// Calls f.template operator()<T>() for f32 and bf16; throws UsageError for float64.
template <class F>
void dispatch_cell(DType dtype, F&& f) {
  if (dtype == DType::kF64) {
    throw UsageError(
        "[mlstm_cell] float64 has no CUDA kernels; use f32 or bf16, or run the cell on the CPU");
  }
  carousel::cuda::dispatch_floating("mlstm_cell", dtype, f);
}

/// Whether the Hopper kernels run this call: an H100-class device, bf16, sizes and addresses they
/// take.
bool uses_hopper(const carousel::cuda::Stream& stream, const CellInputs& in,
                 std::initializer_list<const Tensor*> others);

/// Throws UsageError if a state's rows are too long for the recurrent kernels.
void check_scan_sizes(const Problem& problem);

}  // namespace carousel::mlstm::cuda
