#include "layers/language_model.h"

#include "core/kernels/activation.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/headwise.h"

namespace carousel {

Tensor next_token_logits(const LanguageModel& model, const Tensor& tokens, ModelState& state) {
  const NoGrad no_grad;
  const Variable hidden = model.hidden(tokens, {}, {.state = &state});
  const std::int64_t batch = tokens.dim(0);
  const std::int64_t seq = tokens.dim(1);
  const std::int64_t dim = hidden.dim(-1);
  // Rows of the last token: the last dim columns of (B, S·D).
  Tensor last = Tensor::empty({batch, dim}, hidden.dtype(), hidden.device());
  copy_columns(last.device(), {.x = hidden.value().reshape({batch, seq * dim}),
                               .out = last,
                               .x_column = (seq - 1) * dim,
                               .columns = dim});
  const Tensor raw = model.logits(Variable(last)).value();
  Tensor z = Tensor::empty(raw.shape(), DType::kF32, raw.device());
  cast(z.device(), {raw, z});
  if (model.logit_cap() > 0) {
    Tensor capped = empty_like(z);
    soft_cap_fwd(z.device(), {z, capped, model.logit_cap()});
    return capped;
  }
  return z;
}

}  // namespace carousel
