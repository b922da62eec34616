// The language-modelling loss of a batch, shared by training, evaluation and `plan`.
#pragma once

#include "data/batch.h"
#include "layers/language_model.h"

namespace carousel {

struct BatchLoss {
  Variable sum;      ///< () accumulation dtype: summed over the batch's targets, in nats
  Tensor per_token;  ///< (B·S) accumulation dtype: 0 where the target is ignored
  Tensor correct;    ///< (B·S) u8: 1 where the largest logit is the target's
};

/// Forward pass and loss of `batch`, whose tensors are moved to the model's device first.
BatchLoss batch_loss(const LanguageModel& model, const Batch& batch, const ForwardOptions& options);

}  // namespace carousel
