// Files: read through a mapping, written in one pass. Every failure is an Error with the path, the
// system's reason and the remedy; its exit code is the caller's, who knows what the file is.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "core/base/error.h"

namespace carousel {

/// "cannot <action> '<path>': <the system's text>; <what to do>" for a value of errno.
std::string io_error(std::string_view action, const std::filesystem::path& path, int error);

/// A whole regular file, mapped read-only. The file must not shrink while it is mapped; replacing
/// it by rename, or deleting it, is fine.
class MappedFile {
 public:
  /// Throws Error(failure) if the path cannot be read or is not a regular file.
  MappedFile(std::filesystem::path path, ExitCode failure);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  /// Gives the memory of whole pages within the range back; they are read again when touched. So a
  /// reader of large files does not hold them beside what it makes of them. Thread-safe.
  void forget(std::size_t offset, std::size_t bytes) const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// A new file, written from front to back.
class OutputFile {
 public:
  /// Sees every piece written, in order and while it is in the cache: for hashing on the way.
  using Observer = std::function<void(std::span<const std::byte>)>;

  /// Creates the file, or empties it if it exists; never follows a symbolic link.
  explicit OutputFile(std::filesystem::path path, Observer observer = {});
  /// Closes the file; without finish() its contents may never have reached the disk.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// Waits until everything is on the disk, and closes the file.
  void finish();

 private:
  std::filesystem::path path_;
  Observer observer_;
  int descriptor_ = -1;
};

/// Writes `path` through `fill`: beside it as "<path>.tmp", synced, then renamed, so that the path
/// holds either what it held before or all of the new file. Throws CheckpointError, and what `fill`
/// throws; nothing is left behind then.
void replace_file(const std::filesystem::path& path, const std::function<void(OutputFile&)>& fill);

/// Waits until the directory's entries (new names, renames) are on the disk.
void sync_directory(const std::filesystem::path& path);

}  // namespace carousel
