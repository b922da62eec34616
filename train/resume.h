// How a run begins: with a new model, where it stopped, or with the weights of an imported one.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "data/dataset.h"
#include "train/checkpoint/checkpoint.h"
#include "train/config/config.h"

namespace carousel {

struct Beginning {
  std::optional<Checkpoint> checkpoint;  ///< none: a new model
  /// The path, made absolute, that checkpoint.resume named when the run left another's
  /// checkpoint; empty if it never did. It is saved with the run's own checkpoints, so that the
  /// same command, started again, goes on from these.
  std::string resumed_from;
};

/// Chooses as checkpoint.resume says. `own`: the directory of output_dir's checkpoints. auto takes
/// the newest good one there, if any. A path, of a run or a checkpoint, is taken unless the newest
/// in `own` came from it. Throws UsageError if checkpoints in `own` stand in the way: any of them,
/// with `never`; later ones of another origin, with a path. Throws CheckpointError.
Beginning choose_beginning(const Config& config, const std::filesystem::path& own);

/// Whether the checkpoint is a model and no more, as import writes it: a run that begins with it
/// takes its weights and starts at step 0.
bool is_imported(const Checkpoint& checkpoint);

/// The tokenizer that the checkpoint makes a run use in place of the configured one; null: none,
/// also where a model was imported without any.
std::unique_ptr<Tokenizer> tokenizer_to_keep(const Checkpoint& checkpoint);

/// Throws CheckpointError that lists the values of fixed_values() which differ; of an imported
/// model those that its weights depend on.
void require_same_config(const Checkpoint& checkpoint, const Config& config);

/// Throws DataError if a corpus has another number of tokens than when the checkpoint was written:
/// the order of the data, and what is held out, would be others.
void require_same_data(const Checkpoint& checkpoint, const Dataset& dataset);

/// What the checks above read, for trainer.json.
nlohmann::json resume_record(const Config& config, const Dataset& dataset,
                             const std::string& resumed_from);

}  // namespace carousel
