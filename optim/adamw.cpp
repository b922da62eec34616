#include "optim/adamw.h"

namespace carousel {

AdamW::AdamW(ParameterSet& parameters, const AdamWConfig& config)
    : parameters_(parameters), config_(config) {
  const RoleScope role(Role::kOptimizer);
  m_ = zeros_like(parameters.master());
  v_ = zeros_like(parameters.master());
  norm2_ = Tensor::zeros({}, DType::kF64, m_.device());
  for (const Parameter& p : parameters.all()) {
    const double decay = p.spec.decay ? config.weight_decay : 0.0;
    const std::int64_t end = p.offset + p.spec.shape.numel();
    // Neighbours of one decay group become one segment; the padding between them is zero in every
    // arena and stays zero under the update.
    if (!segments_.empty() && segments_.back().weight_decay == decay) {
      segments_.back().end = end;
    } else {
      segments_.push_back({p.offset, end, decay});
    }
  }
}

void AdamW::update(std::int64_t step, double lr) {
  sum_of_squares(m_.device(), {parameters_.grad(), norm2_});
  adamw(m_.device(), {.master = parameters_.master(),
                      .grad = parameters_.grad(),
                      .m = m_,
                      .v = v_,
                      .compute = parameters_.compute(),
                      .segments = segments_,
                      .grad_norm2 = norm2_,
                      .clip = config_.clip,
                      .lr = lr,
                      .beta1 = config_.beta1,
                      .beta2 = config_.beta2,
                      .eps = config_.eps,
                      .step = step});
  parameters_.master().bump_version();
  if (parameters_.compute().defined()) parameters_.compute().bump_version();
}

}  // namespace carousel
