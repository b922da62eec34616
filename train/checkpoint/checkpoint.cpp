#include "train/checkpoint/checkpoint.h"

#include <algorithm>

#include "core/base/log.h"
#include "train/checkpoint/directory.h"
#include "train/interchange/json_reader.h"

namespace carousel {
namespace fs = std::filesystem;
namespace {

void make_directory(const fs::path& path) {
  if (directory_exists(path)) return;
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw CheckpointError("{}", io_error("create the directory", path, error.value()));
}

Manifest write_files(const fs::path& path, std::int64_t step, const CheckpointContents& contents) {
  Manifest manifest{.step = step};
  if (contents.peers != nullptr) contents.peers->begin(path);
  const auto write = [&](const std::string& name, const auto& fill) {
    manifest.files[name] = write_hashed(path / name, fill);
  };
  const auto write_text = [&](const std::string& name, const std::string& text) {
    if (!text.empty()) write(name, [&](OutputFile& file) { file.write(text); });
  };
  if (!contents.optimizer.empty()) {
    write(contents.optimizer_file,
          [&](OutputFile& file) { write_safetensors(file, contents.optimizer, {}); });
  }
  write_text("config.json", contents.config_json);
  write_text("tokenizer.json", contents.tokenizer_json);
  write_text("trainer.json", contents.trainer.dump(2) + "\n");
  if (contents.peers != nullptr) manifest.files.merge(contents.peers->finish());
  write("model.safetensors", [&](OutputFile& file) {
    const std::map<std::string, std::string> metadata{{"format", "pt"}};
    if (contents.streamed_model.empty()) {
      write_safetensors(file, contents.model, metadata);
    } else {
      stream_safetensors(file, contents.streamed_model, metadata);
    }
  });
  return manifest;
}

Manifest read_manifest(const fs::path& directory) {
  const MappedFile file(directory / Manifest::kFileName, ExitCode::kCheckpoint);
  Manifest manifest = parse_manifest(file.path(), file.text());
  for (const char* name : {"model.safetensors", "trainer.json"}) {
    if (!manifest.files.contains(name)) {
      throw CheckpointError("'{}' lists no {}", file.path().string(), name);
    }
  }
  return manifest;
}

// The manifest of a directory whose files match it.
Manifest verify(const fs::path& path, bool read_contents) {
  Manifest manifest = read_manifest(path);
  if (const std::string problems = verify_files(path, manifest, read_contents); !problems.empty()) {
    throw CheckpointError("checkpoint '{}' is damaged; delete it or restore it from a copy:{}",
                          path.string(), problems);
  }
  return manifest;
}

}  // namespace

void save_checkpoint(const fs::path& directory, std::int64_t step,
                     const CheckpointContents& contents) {
  CAROUSEL_CHECK(step >= 0, "checkpoint of step {}", step);
  make_directory(directory);
  const DirectoryLock lock(directory, DirectoryLock::Mode::kWait);
  clean_up(directory);
  const fs::path final = directory / checkpoint_name(step);
  directory_exists(final);  // refuses to replace what is not a directory
  const fs::path temporary = temporary_path(directory, step);
  try {
    make_directory(temporary);
    const Manifest manifest = write_files(temporary, step, contents);
    write_hashed(temporary / Manifest::kFileName,
                 [&](OutputFile& file) { file.write(to_json(manifest)); });
    sync_directory(temporary);
    publish(directory, step);
  } catch (...) {
    std::error_code ignored;  // gives the space of a half-written checkpoint back
    fs::remove_all(temporary, ignored);
    throw;
  }
}

Checkpoint::Checkpoint(fs::path path, Manifest manifest)
    : path_(std::move(path)), manifest_(std::move(manifest)) {
  const fs::path trainer = path_ / "trainer.json";
  trainer_ = parse_json_object(trainer, text_of("trainer.json"));
  const auto is_text = [](const nlohmann::json& value) { return value.is_string(); };
  const auto is_size = [](const nlohmann::json& value) { return value.is_number_unsigned(); };
  const auto require = [&](const char* key, const auto& good, const char* what) {
    const auto value = trainer_.find(key);
    if (value == trainer_.end() || good(*value)) return;
    throw CheckpointError("'{}' is broken: {} is {}, must be {}", trainer.string(), key,
                          shown(*value), what);
  };
  require("resumed_from", is_text, "text");
  require("train_tokens", is_size, "a number of tokens");
  require("val_tokens", is_size, "a number of tokens");
  const auto texts = [&](const nlohmann::json& values) {
    return values.is_object() && std::ranges::all_of(values, is_text);
  };
  require("config", texts, "an object of texts");
}

Checkpoint Checkpoint::open(const fs::path& path, bool read_contents) {
  return {path, verify(path, read_contents)};
}

std::string optimizer_part_name(int rank, int world_size) {
  return fmt::format("optimizer-{:05}-of-{:05}.safetensors", rank + 1, world_size);
}

std::vector<std::string> Checkpoint::optimizer_files() const {
  std::vector<std::string> names;
  for (const auto& [name, record] : manifest_.files) {
    if (name.starts_with("optimizer") && name.ends_with(".safetensors")) names.push_back(name);
  }
  return names;
}

std::vector<SafetensorsFile> Checkpoint::optimizer() const {
  if (!has_optimizer()) {
    throw CheckpointError(
        "checkpoint '{}' holds no optimizer state, so training cannot be resumed from it",
        path_.string());
  }
  std::vector<SafetensorsFile> files;
  for (const std::string& name : optimizer_files()) files.emplace_back(path_ / name);
  return files;
}

std::string Checkpoint::text_of(const std::string& name) const {
  if (!manifest_.files.contains(name)) return "";
  return std::string(MappedFile(path_ / name, ExitCode::kCheckpoint).text());
}

std::unique_ptr<Tokenizer> checkpoint_tokenizer(const Checkpoint& checkpoint) {
  const std::string text = checkpoint.tokenizer_json();
  if (text.empty()) return nullptr;
  const std::string where = (checkpoint.path() / "tokenizer.json").string();
  try {
    return tokenizer_from_json(nlohmann::json::parse(text), where);
  } catch (const nlohmann::json::exception& e) {
    throw CheckpointError("'{}' is broken: {}", where, e.what());
  } catch (const DataError& e) {
    throw CheckpointError("{}", e.what());
  }
}

std::optional<Checkpoint> newest_good_checkpoint(const fs::path& directory,
                                                 std::vector<std::string>* rejected) {
  if (!directory_exists(directory)) return std::nullopt;
  if (const DirectoryLock lock(directory, DirectoryLock::Mode::kTry); lock.held()) {
    try {
      clean_up(directory);
    } catch (const CheckpointError& e) {
      log::warn("leftovers of an interrupted save stay: {}", e.what());  // e.g. a read-only disk
    }
  }
  std::string problems;
  for (const FoundCheckpoint& found : list_checkpoints(directory)) {
    try {
      return Checkpoint::open(found.path);
    } catch (const CheckpointError& e) {
      log::warn("skipping a bad checkpoint: {}", e.what());
      problems += fmt::format("\n{}", e.what());
      if (rejected != nullptr) rejected->push_back(e.what());
    }
  }
  if (!problems.empty()) {
    throw CheckpointError(
        "'{}' holds no good checkpoint; restore one from a copy, or choose another output_dir to "
        "begin anew:{}",
        directory.string(), problems);
  }
  return std::nullopt;
}

void prune_checkpoints(const fs::path& directory, std::int64_t keep) {
  if (keep <= 0) return;
  if (!directory_exists(directory)) return;
  const DirectoryLock lock(directory, DirectoryLock::Mode::kWait);
  clean_up(directory);
  std::int64_t kept = 0;
  std::vector<std::int64_t> superfluous;  // newest first
  for (const FoundCheckpoint& found : list_checkpoints(directory)) {
    if (kept == keep) {
      superfluous.push_back(found.step);
      continue;
    }
    try {
      verify(found.path, kept == 0);
      ++kept;
    } catch (const CheckpointError& e) {
      log::warn("a bad checkpoint does not count among those kept: {}", e.what());
    }
  }
  for (auto step = superfluous.rbegin(); step != superfluous.rend(); ++step) {
    discard(directory, *step);
  }
}

}  // namespace carousel
