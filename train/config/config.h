// The configuration of a run, read from strict YAML: defaults < file < overrides.
// The table of all keys is in schema.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor/dtype.h"
#include "data/config.h"
#include "layers/xlstm_config.h"
#include "layers/xlstm_large_config.h"
#include "optim/config.h"

namespace carousel {

enum class ModelFamily { kXlstmLarge, kXlstm };
enum class DeviceChoice { kAuto, kUseCpu, kUseCuda };

/// Only the family that `family` names means anything. vocab_size counts in place of the families'
/// own: the trainer fills it in from the tokenizer if it is unset.
struct ModelConfig {
  ModelFamily family = ModelFamily::kXlstmLarge;
  std::optional<std::int64_t> vocab_size;
  XlstmLargeConfig xlstm_large;
  XlstmConfig xlstm;
};

struct CheckpointConfig {
  std::int64_t every = 1000;    ///< steps; 0: only at the end
  std::int64_t keep = 3;        ///< newest checkpoints to keep; 0: all
  bool async = false;           ///< written by a thread, from a copy, while training goes on
  std::string resume = "auto";  ///< auto, never, or the path of a checkpoint
};

struct EvalConfig {
  std::int64_t every = 0;     ///< steps; 0: only at the end, if there is validation data
  std::int64_t batches = 20;  ///< batches an evaluation; 0: all
};

struct SampleConfig {
  std::int64_t every = 0;  ///< steps; 0: never
  std::string prompt = "\n";
  std::int64_t tokens = 200;
  double temperature = 0.8;  ///< 0: always the most likely token
};

struct LoggingConfig {
  std::int64_t every = 10;   ///< steps
  bool tensorboard = false;  ///< an event file besides metrics.jsonl
};

struct DistributedConfig {
  std::int64_t zero_stage = 0;   ///< 1: each rank keeps a part of optimizer state and masters
  std::int64_t timeout_s = 300;  ///< seconds, to join and of each collective
  bool deterministic = false;    ///< the same bits for 1, 2, 4, … ranks
  std::int64_t bucket_mb = 100;  ///< MiB of gradients reduced at once
  bool overlap = true;           ///< reduce while the backward goes on
};

struct Config {
  std::string name;
  std::int64_t seed = 1;
  std::int64_t steps = 0;
  std::string output_dir;  ///< load_config() makes it runs/<name> unless it is given
  ModelConfig model;
  DataConfig data;
  AdamWConfig optim;
  ScheduleConfig schedule;
  DType precision = DType::kF32;  ///< of activations and compute weights: f32 or bf16
  bool tf32 = false;              ///< lets float32 products on a GPU run in TF32
  DeviceChoice device = DeviceChoice::kAuto;
  std::optional<std::int64_t> micro_batch_size;  ///< sequences a forward pass; unset: the batch
  bool recompute = false;
  DistributedConfig distributed;
  CheckpointConfig checkpoint;
  EvalConfig eval;
  SampleConfig sample;
  LoggingConfig logging;
};

/// Reads `path`, then the overrides `a.b=value`, of which later ones win; `a.b=null` takes the key
/// out. Throws UsageError that lists every error, one a line, each with its place.
Config load_config(const std::string& path, const std::vector<std::string>& overrides);

/// The same from the text of a file that may not exist yet; errors name it `path`.
Config parse_config(const std::string& text, const std::string& path);

struct LoadedConfig {
  Config config;
  std::map<std::string, std::string> origins;  ///< per key: "default", "run.yaml:12", "override …"
};
/// The same, and where each value came from.
LoadedConfig load_config_with_origins(const std::string& path,
                                      const std::vector<std::string>& overrides);

/// The resolved configuration: every key that has a value. load_config() reads it back unchanged.
std::string to_yaml(const Config& config);
/// The same as lines "a.b=value".
std::string key_values(const Config& config);
/// to_yaml() with a comment a key: where the value came from, and what the key means.
std::string explain(const LoadedConfig& loaded);
/// All keys with type, allowed values, default and meaning, for people.
std::string describe_keys();

/// The values, by key, that may not change when a run is resumed: all but name, steps, output_dir,
/// device, micro_batch_size, recompute, distributed, checkpoint, eval, sample and logging.
std::map<std::string, std::string> fixed_values(const Config& config);

}  // namespace carousel
