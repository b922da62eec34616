// Checkpoints: checkpoints/step-00001000/ holds
//   model.safetensors      weights under the checkpoint's names, metadata {"format": "pt"}
//   optimizer.safetensors  optimizer state (absent from imported models); where it is sharded,
//                          optimizer-00001-of-00002.safetensors and so on, one a rank
//   config.json            the model's configuration in its publisher's form
//   tokenizer.json         absent for tasks without text
//   trainer.json           step, data position, seed, …
//   manifest.json          sizes and hashes of all these
// Saving never harms what is there; loading verifies.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor/safetensors.h"
#include "data/tokenizer.h"
#include "train/checkpoint/manifest.h"

namespace carousel {

/// Other processes that write parts of a checkpoint.
class CheckpointPeers {
 public:
  virtual ~CheckpointPeers() = default;
  /// The directory is there: they may begin.
  virtual void begin(const std::filesystem::path& directory) = 0;
  /// Waits for their files and returns the records of those that belong to the checkpoint. The
  /// model is written after that: it may be made of the others.
  virtual std::map<std::string, FileRecord> finish() = 0;
};

/// What goes into a checkpoint. Nothing is copied; files whose contents are empty are not written.
struct CheckpointContents {
  std::vector<NamedTensor> model;
  /// The same, made one by one when all else is written; in place of `model`.
  std::vector<TensorSource> streamed_model;
  std::vector<NamedTensor> optimizer;
  std::string optimizer_file = "optimizer.safetensors";
  std::shared_ptr<CheckpointPeers> peers;  ///< null: there are none
  std::string config_json;
  std::string tokenizer_json;
  nlohmann::json trainer = nlohmann::json::object();
};

/// Writes `directory`/step-N, creating the directory; replaces a checkpoint of the same step. When
/// it returns, everything is on the disk under its final name; when it throws CheckpointError (disk
/// full, no permission, …) or the process dies, every earlier checkpoint is as it was. Synchronises
/// the tensors' devices; constant extra memory. One process at a time, others wait.
void save_checkpoint(const std::filesystem::path& directory, std::int64_t step,
                     const CheckpointContents& contents);

/// "optimizer-00001-of-00002.safetensors" for rank 0 of 2.
std::string optimizer_part_name(int rank, int world_size);

/// A verified checkpoint. Its files must not be modified while it, or a file from it, is open;
/// being replaced or pruned is fine once model() and optimizer() are open.
class Checkpoint {
 public:
  /// Reads all of it once. Throws CheckpointError that lists everything wrong: files that are
  /// missing, or have another size or hash than the manifest says, and an unsound manifest or
  /// trainer.json. Without `read_contents` it compares sizes alone.
  static Checkpoint open(const std::filesystem::path& path, bool read_contents = true);

  const std::filesystem::path& path() const { return path_; }
  std::int64_t step() const { return manifest_.step; }
  const nlohmann::json& trainer() const { return trainer_; }
  SafetensorsFile model() const { return SafetensorsFile(path_ / "model.safetensors"); }
  bool has_optimizer() const { return !optimizer_files().empty(); }
  /// The files of the optimizer's state, one or one a rank of the run that wrote them. Throws
  /// CheckpointError if there is none.
  std::vector<SafetensorsFile> optimizer() const;
  /// Empty if there is none.
  std::string config_json() const { return text_of("config.json"); }
  std::string tokenizer_json() const { return text_of("tokenizer.json"); }

 private:
  Checkpoint(std::filesystem::path path, Manifest manifest);
  std::string text_of(const std::string& name) const;
  std::vector<std::string> optimizer_files() const;

  std::filesystem::path path_;
  Manifest manifest_;
  nlohmann::json trainer_;
};

/// The tokenizer that the checkpoint carries; nullptr if none.
std::unique_ptr<Tokenizer> checkpoint_tokenizer(const Checkpoint& checkpoint);

/// The good checkpoint with the highest step. Bad ones before it are logged as warnings with all
/// that is wrong, and appended to `rejected` if given. Nothing if there are no checkpoints at all;
/// throws CheckpointError if there are some and none is good: a run must not silently begin anew.
std::optional<Checkpoint> newest_good_checkpoint(const std::filesystem::path& directory,
                                                 std::vector<std::string>* rejected = nullptr);

/// Deletes all checkpoints older than the newest `keep` good ones; keep <= 0 keeps all. Good means
/// complete with the right sizes, and for the newest also the right contents: nothing is deleted
/// before one checkpoint that stays has been read and verified. Throws CheckpointError.
void prune_checkpoints(const std::filesystem::path& directory, std::int64_t keep);

}  // namespace carousel
