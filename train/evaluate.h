// Evaluation on held-out data.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/comm/communicator.h"
#include "data/batch.h"
#include "data/tokenizer.h"
#include "layers/language_model.h"

namespace carousel {

struct EvalResult {
  double loss = 0.0;                    ///< nats per target
  std::int64_t targets = 0;             ///< how many were predicted
  double accuracy = 0.0;                ///< share of targets with the largest logit
  std::optional<double> bits_per_byte;  ///< where tokens stand for bytes of text
  /// At each position of the window: the number of targets, the mean loss of these in nats (0 if
  /// there are none), and how many of them have the largest logit.
  std::vector<std::int64_t> targets_by_position;
  std::vector<double> loss_by_position;
  std::vector<std::int64_t> correct_by_position;

  double perplexity() const;
};

/// Runs the model over all batches of `source`, `micro_batch` sequences at a time (0: a rank's
/// share of a batch). `tokenizer` may be null: then there are no bits per byte. Records nothing;
/// deterministic. With a `communicator`, ranks take turns at the micro-batches, and all get the
/// result. `between`, if given, is called by all ranks together before each of these turns: what it
/// throws ends the evaluation. Throws DataError if there is nothing to predict.
EvalResult evaluate(const LanguageModel& model, const BatchSource& source, std::int64_t micro_batch,
                    const Tokenizer* tokenizer, comm::Communicator* communicator = nullptr,
                    const std::function<void()>& between = {});

/// A line for each stretch of positions that has targets, each stretch twice as long as the one
/// before: their loss and accuracy. So it shows whether a longer context still helps, and where a
/// model fails beyond the lengths it was trained on.
std::string by_position(const EvalResult& result);

/// {"step", "val_loss", "val_perplexity", "val_accuracy"[, "val_bits_per_byte"]}
nlohmann::json eval_record(std::int64_t step, const EvalResult& result);

/// "loss 1.6543 | perplexity 5.23 | 2.387 bits/byte | accuracy 51.2 % | 20480 targets"
std::string to_string(const EvalResult& result);

}  // namespace carousel
