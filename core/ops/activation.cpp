#include "core/ops/activation.h"

#include "core/ops/check.h"

namespace carousel {

Variable soft_cap(const Variable& x, double cap) {
  op_check(x.defined() && is_floating(x.dtype()) && cap > 0, "soft_cap", "x {}, cap {} (> 0)",
           describe(x), cap);
  Tensor y = empty_like(x.value());
  soft_cap_fwd(y.device(), {x.value(), y, cap});
  return record("soft_cap", y, {x}, {y}, [cap](BackwardContext& ctx) {
    Tensor dx = empty_like(ctx.saved(0));
    soft_cap_bwd(dx.device(), {ctx.saved(0), ctx.grad(0), dx, cap});
    ctx.set(0, dx);
  });
}

Variable gated(const Variable& gate, const Variable& up, Activation activation) {
  op_check(gate.defined() && is_floating(gate.dtype()), "gated", "gate {}", describe(gate));
  check_operand("gated", "up", up, gate);
  op_check(up.shape() == gate.shape() && up.dtype() == gate.dtype(), "gated",
           "up {} against gate {}", describe(up), describe(gate));
  Tensor y = empty_like(gate.value());
  gated_fwd(y.device(), {gate.value(), up.value(), y, activation});
  return record("gated", y, {gate, up}, {gate.value(), up.value()},
                [activation](BackwardContext& ctx) {
                  GatedBackwardArgs args{.gate = ctx.saved(0),
                                         .up = ctx.saved(1),
                                         .dy = ctx.grad(0),
                                         .dgate = empty_like(ctx.saved(0)),
                                         .dup = empty_like(ctx.saved(1)),
                                         .activation = activation};
                  gated_bwd(args.gate.device(), args);
                  ctx.set(0, args.dgate);
                  ctx.set(1, args.dup);
                });
}

}  // namespace carousel
