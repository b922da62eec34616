// The manifest of a checkpoint: which files it has, their sizes and their hashes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "core/base/file.h"

namespace carousel {

struct FileRecord {
  std::uint64_t bytes = 0;
  std::uint64_t xxh3 = 0;  ///< XXH3, 64 bits, seed 0
  bool operator==(const FileRecord&) const = default;
};

struct Manifest {
  static constexpr int kVersion = 1;
  static constexpr const char* kFileName = "manifest.json";

  std::int64_t step = 0;
  std::map<std::string, FileRecord> files;  ///< by plain file name, the manifest itself left out
};

/// Creates `path`, lets `write` fill it, and waits until it is on the disk. The hash is taken of
/// the pieces on their way. Throws CheckpointError.
FileRecord write_hashed(const std::filesystem::path& path,
                        const std::function<void(OutputFile&)>& write);

/// Reads the whole file. Not through a mapping: a failing disk must be an error, not a signal.
FileRecord hash_file(const std::filesystem::path& path);

/// The text of manifest.json, which ends with a hash of the rest.
std::string to_json(const Manifest& manifest);

/// The inverse. Throws CheckpointError, naming `path`, for broken JSON, unknown versions, missing
/// or unknown fields, names that are paths, and where the manifest's own hash does not match.
Manifest parse_manifest(const std::filesystem::path& path, std::string_view text);

/// What is wrong with the files in `directory`, one "\n  name: …" a problem; empty if nothing.
/// `read_contents`: compare hashes too, not sizes alone.
std::string verify_files(const std::filesystem::path& directory, const Manifest& manifest,
                         bool read_contents);

}  // namespace carousel
