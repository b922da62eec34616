// What the trainer, the evaluator and the generator know of a model, whichever its family.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/autograd/variable.h"
#include "layers/parameters.h"

namespace carousel {

/// The recurrent state of a batch of sequences: some tensors a block, empty before the first token.
/// Its size does not depend on how many tokens have been read.
struct ModelState {
  std::vector<std::vector<Tensor>> blocks;
};

struct ForwardOptions {
  bool training = false;        ///< dropout on
  bool recompute = false;       ///< keep one tensor a block and run blocks again in the backward
  ModelState* state = nullptr;  ///< if given: continued from, and updated (no gradients through it)
};

class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  /// tokens (B, S) i32, each in [0, vocab_size); reset (B, S) u8 or undefined: non-zero where a
  /// document starts. Returns the final hidden states (B, S, D) in the compute dtype.
  virtual Variable hidden(const Tensor& tokens, const Tensor& reset,
                          const ForwardOptions& options) const = 0;
  /// Logits (…, V) of hidden states (…, D), in the compute dtype, before the soft cap.
  virtual Variable logits(const Variable& hidden) const = 0;
  /// z = cap·tanh(logits/cap) gives the model's logits; 0: no cap.
  virtual double logit_cap() const = 0;

  virtual std::int64_t vocab_size() const = 0;
  /// Forward FLOPs per token at sequence length S, as the scaling-law paper counts them: linears,
  /// logits and cells, no embedding, norms or activations. A training step costs three times that.
  virtual double forward_flops_per_token(std::int64_t seq_len) const = 0;

  ParameterSet& parameters() { return parameters_; }
  const ParameterSet& parameters() const { return parameters_; }

 protected:
  ParameterSet parameters_;
};

/// Capped float32 logits (B, V) of the last token of `tokens` (B, S), S >= 1, continuing from
/// `state` and updating it. Records nothing.
Tensor next_token_logits(const LanguageModel& model, const Tensor& tokens, ModelState& state);

}  // namespace carousel
