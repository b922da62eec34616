#include "core/ops/embedding.h"

#include <vector>

#include "core/kernels/embedding.h"
#include "core/ops/check.h"

namespace carousel {

Variable embedding(const Tensor& ids, const Variable& weight) {
  op_check(weight.defined() && is_floating(weight.dtype()) && weight.shape().rank() == 2,
           "embedding", "weight {}, expected (V, D)", describe(weight));
  op_check(ids.defined() && ids.dtype() == DType::kI32 && ids.rank() < Shape::kMaxRank &&
               ids.device() == weight.device(),
           "embedding", "ids {} against weight {}", describe(ids), describe(weight));
  check_indices("embedding", "token id", ids, weight.dim(0));
  std::vector<std::int64_t> dims(ids.shape().dims().begin(), ids.shape().dims().end());
  dims.push_back(weight.dim(1));
  Tensor out = Tensor::empty(Shape(dims), weight.dtype(), weight.device());
  const Tensor flat = ids.reshape({ids.numel()});
  embedding_fwd(out.device(), {flat, weight.value(), out.reshape({ids.numel(), weight.dim(1)})});
  return record("embedding", out, {weight}, {flat}, [](BackwardContext& ctx) {
    const Tensor& dout = ctx.grad(0);
    const std::int64_t n = ctx.saved(0).numel();
    const std::int64_t dim = dout.dim(-1);
    embedding_bwd(dout.device(), {ctx.saved(0), dout.reshape({n, dim}), ctx.accumulator(0)});
  });
}

}  // namespace carousel
