#include "train/interchange/import.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "data/id_tokenizer.h"
#include "data/sentencepiece_tokenizer.h"
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/directory.h"
#include "train/config/config.h"
#include "train/environment.h"

namespace carousel {
namespace fs = std::filesystem;
namespace {

std::unique_ptr<Tokenizer> open_tokenizer(const std::string& path, std::int64_t vocab) {
  std::unique_ptr<Tokenizer> tokenizer;
  if (path.empty()) {
    return std::make_unique<IdTokenizer>(static_cast<std::int32_t>(vocab), std::nullopt, "import");
  }
  if (path.ends_with(".model")) {
    tokenizer = SentencePieceTokenizer::from_file(path);
  } else {
    tokenizer = load_tokenizer(path);
  }
  if (tokenizer->vocab_size() > vocab) {
    throw UsageError("the tokenizer '{}' has {} tokens, the model only {}; give the model's own",
                     path, tokenizer->vocab_size(), vocab);
  }
  return tokenizer;
}

// A configuration that loads; its data are for the user to set.
Config run_config(const ModelConfig& model, const fs::path& run, const ImportOptions& options) {
  Config config;
  config.name = "imported";
  config.output_dir = run.string();
  config.steps = 1000;
  config.model = model;
  config.data.train = {"set-data.train.txt"};
  if (model.family == ModelFamily::kXlstm) {
    config.data.seq_len = std::min(config.data.seq_len, model.xlstm.context_length);
  }
  config.data.tokenizer = options.tokenizer.empty() ? "none" : options.tokenizer;
  return config;
}

// Throws CheckpointError unless the run that `yaml` describes can be loaded again.
void check_loads(const std::string& yaml, const fs::path& source, const fs::path& run) {
  try {
    parse_config(yaml, (run / "config.yaml").string());
  } catch (const UsageError& e) {
    throw CheckpointError(
        "'{}' describes a model that no run can have; its config.yaml would be:\n{}",
        (source / "config.json").string(), e.what());
  }
}

double mebibytes(std::size_t bytes) { return static_cast<double>(bytes) / (1024.0 * 1024.0); }

void check_plan(const ImportPlan& plan, const fs::path& source, std::size_t limit) {
  const std::size_t available = limit > 0 ? limit : memory_info().available;
  log::info("plan: {} parameters from '{}', {:.1f} MiB to write, {:.1f} MiB of memory for {}",
            plan.parameters, source.string(), mebibytes(plan.disk), mebibytes(plan.memory),
            plan.largest);
  if (available > 0 && plan.memory > available) {
    throw OutOfMemoryError(
        "importing '{}' needs {:.1f} MiB of memory for its largest tensor, {}, but {:.1f} MiB are "
        "available; free memory or import on a larger machine",
        source.string(), mebibytes(plan.memory), plan.largest, mebibytes(available));
  }
}

}  // namespace

ImportPlan plan_import(const PublishedModel& published) {
  ImportPlan plan;
  for (const StackedTensor& t : published.tensors) {
    for (const Parameter* part : t.parts) {
      const auto bytes = static_cast<std::size_t>(part->spec.shape.numel()) * sizeof(float);
      const std::size_t needed = t.swap ? 2 * bytes : bytes;  // before and after the swap
      plan.parameters += part->spec.shape.numel();
      plan.disk += bytes;
      if (needed > plan.memory) {
        plan.memory = needed;
        plan.largest = fmt::format("{} {}", part->spec.name, part->spec.shape);
      }
    }
  }
  return plan;
}

void import_model(const fs::path& source, const fs::path& run, const ImportOptions& options) {
  const fs::path checkpoints = run / "checkpoints";
  if (!list_checkpoints(checkpoints).empty()) {
    throw UsageError("'{}' holds checkpoints already; give a new directory", run.string());
  }
  if (fs::exists(run / "config.yaml")) {
    throw UsageError("'{}' exists already and would be overwritten; give a new directory",
                     (run / "config.yaml").string());
  }
  const ModelFiles files = ModelFiles::open(source);
  const PublishedModel published = read_published_model(files);
  check_plan(plan_import(published), source, options.memory_limit);
  const auto tokenizer = open_tokenizer(options.tokenizer, published.model->vocab_size());
  const Config config = run_config(published.config, run, options);
  const std::string yaml = to_yaml(config);
  check_loads(yaml, source, run);
  CheckpointContents contents;
  contents.streamed_model = parameter_sources(files, published, DType::kF32);
  contents.config_json = published_config(published.config);
  contents.tokenizer_json = tokenizer->to_json().dump();
  contents.trainer = {{"step", 0},
                      {"imported_from", fs::absolute(source).string()},
                      {"config", fixed_values(config)}};
  save_checkpoint(checkpoints, 0, contents);
  replace_file(run / "config.yaml", [&](OutputFile& file) { file.write(yaml); });
  log::info("imported {} parameters from '{}' to '{}'", published.model->parameters().count(),
            source.string(), run.string());
}

}  // namespace carousel
