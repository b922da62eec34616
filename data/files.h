// Files of the data floor: files that appear whole or not at all, and the resolution
// of a configuration's paths to the files of a corpus.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace carousel {

/// Writes `path` under the name `path`.tmp and renames it on commit(), after its bytes have reached
/// the disk: readers see the old file or the new one, never a part. Without commit() the temporary
/// file is removed. Not thread-safe. All members throw DataError with the path and the reason.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends.
  void write(std::span<const std::byte> bytes);
  /// Overwrites bytes at the beginning of the file.
  void write_front(std::span<const std::byte> bytes);
  void commit();

 private:
  std::string path_;
  std::string temporary_;
  int file_ = -1;
};

enum class CorpusKind : std::uint8_t { kText, kShards };

/// The files of one corpus, in order.
struct CorpusFiles {
  CorpusKind kind = CorpusKind::kText;
  std::vector<std::string> paths;
};

/// Resolves entries, each a file, a directory or a glob pattern, in the order given. A file is a
/// token shard if its name ends in .bin, text otherwise; a directory stands for its own .bin or
/// .txt files (not those of folders inside it); the matches of a directory or a pattern are sorted
/// by name. Throws DataError if an entry matches nothing, or something that is neither a regular
/// file nor a folder, such as a dangling link; if a file is named twice; if shards and text are
/// mixed.
CorpusFiles find_corpus_files(std::span<const std::string> entries);

/// The first file of `a` that is one of `b`'s too, under whatever name.
std::optional<std::string> shared_file(const CorpusFiles& a, const CorpusFiles& b);

}  // namespace carousel
