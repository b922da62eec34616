// What can be told of checkpoints without taking part in the run: nothing is changed or locked, so
// a run that saves and prunes in the same directory is not disturbed.
#pragma once

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "train/checkpoint/directory.h"

namespace carousel {

/// One checkpoint. What a bad one, or one of an imported model, does not tell is 0 or empty.
struct CheckpointReport {
  std::filesystem::path path;
  std::optional<std::int64_t> step;
  std::uint64_t bytes = 0;  ///< of its files
  std::time_t saved = 0;
  std::int64_t world_size = 0;  ///< processes that wrote it
  std::int64_t samples = 0;     ///< sequences trained on until then
  std::int64_t parameters = 0;
  std::string dtype;           ///< of the parameters
  std::string problem;         ///< all that is wrong, as Checkpoint::open() says it; empty: good
  bool contents_read = false;  ///< hashes were compared, not sizes alone
  bool has_optimizer = false;
  bool left_over = false;  ///< an interrupted replacement left it under a hidden name
  bool resumed = false;    ///< the one that training would go on from
};

struct InspectOptions {
  bool read_contents = true;  ///< compare hashes too, not sizes alone
  /// Called before a checkpoint of that many bytes is read.
  std::function<void(const std::filesystem::path&, std::uint64_t)> before_reading;
};

/// Nothing if there is no such checkpoint, or not any more when it has been read. One that is
/// replaced meanwhile is read again.
std::optional<CheckpointReport> inspect_checkpoint(const std::filesystem::path& path,
                                                   const InspectOptions& options = {});

/// All of a directory, newest step first; those that vanish meanwhile are left out, and those that
/// came in their place are read. Throws CheckpointError if the directory cannot be read.
std::vector<CheckpointReport> inspect_checkpoints(const std::filesystem::path& directory,
                                                  const InspectOptions& options = {});

/// A table with a line each, and a line of headings.
std::string to_string(const std::vector<CheckpointReport>& reports);

}  // namespace carousel
