// The directory that holds a run's checkpoints: names, the lock, and what survives a crash.
//
// A checkpoint is written as ".step-N.tmp" and renamed to "step-N". Where "step-N" exists already
// it first becomes ".step-N.old". So a crash leaves at any moment either "step-N" or ".step-N.old"
// complete, and ".tmp" never matters.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace carousel {

/// "step-00001000".
std::string checkpoint_name(std::int64_t step);
/// The inverse; nothing for other names.
std::optional<std::int64_t> checkpoint_step(std::string_view name);

/// False if nothing has that name. Throws CheckpointError if it is no directory, or if it cannot be
/// told.
bool directory_exists(const std::filesystem::path& path);

struct FoundCheckpoint {
  std::int64_t step = 0;
  std::filesystem::path path;
};

/// Everything in the directory that is named like a checkpoint, good or not, newest step first;
/// empty if there is no such directory. Throws CheckpointError if it cannot be read.
std::vector<FoundCheckpoint> list_checkpoints(const std::filesystem::path& directory);
/// The same as if clean_up() had run, for readers that must change nothing: where an interrupted
/// replacement left no "step-N", its ".step-N.old" is listed.
std::vector<FoundCheckpoint> list_checkpoints_as_cleaned(const std::filesystem::path& directory);

/// Keeps savers and cleaners of one directory apart, between processes; the system releases it when
/// the process ends, however it ends. Where the file system has no locks it is held without effect.
class DirectoryLock {
 public:
  enum class Mode { kWait, kTry };

  DirectoryLock(const std::filesystem::path& directory, Mode mode);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

  /// False only for kTry while another process holds it.
  bool held() const { return held_; }

 private:
  int descriptor_ = -1;
  bool held_ = false;
};

/// Where save_checkpoint() writes before it publishes.
std::filesystem::path temporary_path(const std::filesystem::path& directory, std::int64_t step);

/// Renames the complete temporary_path() to its final name, replacing what has that name. Needs the
/// lock. Throws CheckpointError; the replaced checkpoint is in place again then.
void publish(const std::filesystem::path& directory, std::int64_t step);

/// Deletes a checkpoint such that a crash half-way leaves nothing that looks like one. Needs the
/// lock. Throws CheckpointError.
void discard(const std::filesystem::path& directory, std::int64_t step);

/// Brings back the ".old" of an interrupted replacement, and deletes other leftovers of crashes;
/// touches only names that are ours. Needs the lock. Throws CheckpointError.
void clean_up(const std::filesystem::path& directory);

}  // namespace carousel
