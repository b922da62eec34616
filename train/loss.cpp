#include "train/loss.h"

#include "core/ops/cross_entropy.h"
#include "core/ops/elementwise.h"

namespace carousel {

BatchLoss batch_loss(const LanguageModel& model, const Batch& batch,
                     const ForwardOptions& options) {
  const Device device = model.parameters().master().device();
  const RoleScope role(Role::kActivations);
  const Tensor reset = batch.reset.defined() ? batch.reset.to(device) : Tensor();
  const Variable hidden = model.hidden(batch.tokens.to(device), reset, options);
  const std::int64_t rows = batch.tokens.numel();
  const Variable logits = model.logits(reshape(hidden, {rows, hidden.dim(-1)}));
  const CrossEntropy loss =
      cross_entropy(logits, batch.targets.reshape({rows}).to(device), model.logit_cap());
  return {sum(loss.loss), loss.loss.value(), loss.correct};
}

}  // namespace carousel
