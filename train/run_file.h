// Files of a run directory: written whole at its start, or growing while it trains.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace carousel {

/// "cannot write '<path>': <the system's reason>; <remedy>", of the call that has just failed.
std::string write_error(const std::filesystem::path& path, std::string_view remedy);

/// Writes a whole file, which holds what it held before if that fails, with UsageError.
void write_run_file(const std::filesystem::path& path, std::string_view text);

/// A file that grows while the run goes on; whoever watches it sees each write at once.
class GrowingFile {
 public:
  /// Opens `path` behind what it holds, or creates it. Throws UsageError if it cannot be written.
  explicit GrowingFile(std::filesystem::path path);
  /// Throws UsageError if the disk is full.
  void write(std::string_view bytes);

 private:
  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace carousel
