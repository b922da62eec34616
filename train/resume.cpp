#include "train/resume.h"

#include <map>
#include <set>

#include "core/base/error.h"
#include "train/checkpoint/directory.h"
#include "train/run_directory.h"

namespace carousel {
namespace fs = std::filesystem;
namespace {

std::string origin_of(const Checkpoint& checkpoint) {
  return checkpoint.trainer().value("resumed_from", "");
}

// "runs/a" and "runs/a/" are one path; links are left as they are, for what is gone has none.
std::string absolute_path(const std::string& path) {
  const fs::path whole = fs::absolute(path).lexically_normal();
  return (whole.has_filename() ? whole : whole.parent_path()).string();
}

bool decides_weights(const std::string& key) {
  return key.starts_with("model.") && key != "model.dropout";
}

std::int64_t corpus_size(const std::shared_ptr<const BatchSource>& source) {
  return source ? source->corpus_size() : 0;
}

}  // namespace

Beginning choose_beginning(const Config& config, const fs::path& own) {
  const std::string& resume = config.checkpoint.resume;
  if (resume == "never") {
    if (list_checkpoints(own).empty()) return {};
    throw UsageError(
        "'{}' already holds checkpoints and checkpoint.resume is never; remove them or choose "
        "another output_dir",
        own.string());
  }
  auto newest = newest_good_checkpoint(own);
  const std::string origin = newest ? origin_of(*newest) : "";
  if (resume == "auto") return {std::move(newest), origin};
  const std::string path = absolute_path(resume);
  if (newest && origin == path) return {std::move(newest), origin};
  Checkpoint chosen = open_checkpoint(resume);
  if (newest && newest->step() > chosen.step()) {
    throw UsageError(
        "checkpoint.resume: '{}' is of step {}, but '{}' holds checkpoints up to step {} that did "
        "not come from it; move those away or choose another output_dir",
        resume, chosen.step(), own.string(), newest->step());
  }
  return {std::move(chosen), path};
}

bool is_imported(const Checkpoint& checkpoint) {
  return checkpoint.step() == 0 && !checkpoint.has_optimizer();
}

std::unique_ptr<Tokenizer> tokenizer_to_keep(const Checkpoint& checkpoint) {
  auto tokenizer = checkpoint_tokenizer(checkpoint);
  if (tokenizer && is_imported(checkpoint) && tokenizer->kind() == "none") return nullptr;
  return tokenizer;
}

void require_same_config(const Checkpoint& checkpoint, const Config& config) {
  using Values = std::map<std::string, std::string>;
  const auto was = checkpoint.trainer().value("config", Values{});
  const Values now = fixed_values(config);
  std::set<std::string> keys;
  for (const Values* values : {&was, &now}) {
    for (const auto& [key, value] : *values) keys.insert(key);
  }
  std::string lines;
  for (const std::string& key : keys) {
    if (is_imported(checkpoint) && !decides_weights(key)) continue;
    const auto text_in = [&](const Values& values) {
      const auto found = values.find(key);
      return found != values.end() ? found->second : "not set";
    };
    const std::string before = text_in(was);
    const std::string after = text_in(now);
    if (before != after) lines += fmt::format("\n  {}: {}, now {}", key, before, after);
  }
  if (!lines.empty()) {
    throw CheckpointError(
        "'{}' was written with another configuration; restore it, or choose another output_dir:{}",
        checkpoint.path().string(), lines);
  }
}

void require_same_data(const Checkpoint& checkpoint, const Dataset& dataset) {
  const auto check = [&](const char* key, const char* what, std::int64_t now) {
    const std::int64_t was = checkpoint.trainer().value(key, now);
    if (was == now) return;
    throw DataError(
        "{} has {} tokens, but had {} when '{}' was written; restore the files: the order of the "
        "data, and what is held out, depend on them. To train these weights on other data, export "
        "the checkpoint and import it as a new run",
        what, now, was, checkpoint.path().string());
  };
  check("train_tokens", "data.train", corpus_size(dataset.train));
  check("val_tokens", "data.val", corpus_size(dataset.validation));
}

nlohmann::json resume_record(const Config& config, const Dataset& dataset,
                             const std::string& resumed_from) {
  nlohmann::json record = {{"config", fixed_values(config)},
                           {"train_tokens", corpus_size(dataset.train)},
                           {"val_tokens", corpus_size(dataset.validation)}};
  if (!resumed_from.empty()) record["resumed_from"] = resumed_from;
  return record;
}

}  // namespace carousel
