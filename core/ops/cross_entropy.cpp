#include "core/ops/cross_entropy.h"

#include "core/kernels/cross_entropy.h"
#include "core/ops/check.h"

namespace carousel {

CrossEntropy cross_entropy(const Variable& logits, const Tensor& target, double cap) {
  op_check(logits.defined() && is_floating(logits.dtype()) && logits.shape().rank() == 2 &&
               logits.dim(1) > 0 && cap >= 0,
           "cross_entropy", "logits {}, expected (N, V); cap {} (>= 0)", describe(logits), cap);
  op_check(target.defined() && target.dtype() == DType::kI32 &&
               target.shape() == Shape{logits.dim(0)} && target.device() == logits.device(),
           "cross_entropy", "target {} against logits {}", describe(target), describe(logits));
  static_assert(kIgnoreTarget == -1, "the allowed targets are one range");
  check_indices("cross_entropy", "target", target, logits.dim(1), kIgnoreTarget);
  const Tensor& z = logits.value();
  const Shape rows{logits.dim(0)};
  const DType wide = accumulation_dtype(z.dtype());
  Tensor loss = Tensor::empty(rows, wide, z.device());
  Tensor lse = Tensor::empty(rows, wide, z.device());
  Tensor correct = Tensor::empty(rows, DType::kU8, z.device());
  cross_entropy_fwd(z.device(), {z, target, loss, lse, correct, cap});
  const auto backward = [cap](BackwardContext& ctx) {
    // Logits that nobody else holds any more give their memory, the largest of a step, to their
    // gradient.
    const Tensor& logits_left = ctx.saved(0);
    const Tensor dlogits = logits_left.unique() ? logits_left : empty_like(logits_left);
    cross_entropy_bwd(dlogits.device(), {.logits = logits_left,
                                         .target = ctx.saved(1),
                                         .lse = ctx.saved(2),
                                         .dloss = ctx.grad(0),
                                         .dlogits = dlogits,
                                         .cap = cap});
    ctx.set(0, dlogits);
  };
  return {record("cross_entropy", loss, {logits}, {z, target, lse}, backward), correct};
}

}  // namespace carousel
