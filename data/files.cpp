#include "data/files.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "core/base/error.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;

std::string reason(int error) { return std::generic_category().message(error); }

bool is_shard(const std::string& path) { return path.ends_with(".bin"); }

/// Writes all bytes at `offset`, or appends if it is negative.
void write_all(int file, const std::string& path, std::span<const std::byte> bytes, off_t offset) {
  while (!bytes.empty()) {
    const ssize_t n = offset < 0 ? ::write(file, bytes.data(), bytes.size())
                                 : ::pwrite(file, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw DataError("cannot write {}: {}", path, reason(errno));
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    if (offset >= 0) offset += n;
  }
}

/// Makes a rename inside the folder of `path` durable.
void sync_folder_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  const std::string folder = parent.empty() ? "." : parent.string();
  const int file = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) throw DataError("cannot open folder {}: {}", folder, reason(errno));
  const int rc = ::fsync(file);
  const int error = errno;
  ::close(file);
  // Some network file systems cannot sync a folder (EINVAL); their renames are durable by
  // themselves.
  if (rc != 0 && error != EINVAL)
    throw DataError("cannot sync folder {}: {}", folder, reason(error));
}

/// Whether a match is a file of the corpus; folders are not. Anything else would be missing from
/// the corpus without a word.
bool is_corpus_file(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) return false;
  if (fs::is_regular_file(status)) return true;
  throw DataError("{} is not a readable file{}; restore it, or remove it from the data",
                  path.string(), error ? ": " + error.message() : "");
}

std::vector<std::string> files_in_directory(const std::string& directory) {
  std::vector<std::string> files;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const std::string path = it->path().string();
    if ((is_shard(path) || path.ends_with(".txt")) && is_corpus_file(path)) files.push_back(path);
  }
  if (error) throw DataError("cannot list directory {}: {}", directory, error.message());
  if (files.empty()) {
    throw DataError(
        "directory {} has no .txt or .bin file; name the files themselves or a pattern "
        "such as {}/*.text",
        directory, directory);
  }
  return files;
}

std::vector<std::string> files_of_pattern(const std::string& pattern) {
  ::glob_t matches{};
  const int rc = ::glob(pattern.c_str(), GLOB_NOSORT | GLOB_ERR, nullptr, &matches);
  std::vector<std::string> files;
  for (std::size_t i = 0; rc == 0 && i < matches.gl_pathc; ++i) {
    files.emplace_back(matches.gl_pathv[i]);
  }
  ::globfree(&matches);
  if (rc != 0 && rc != GLOB_NOMATCH)
    throw DataError("cannot search for {}: unreadable folder", pattern);
  std::erase_if(files, [](const std::string& path) { return !is_corpus_file(path); });
  if (files.empty()) throw DataError("no file matches {}; check data.train and data.val", pattern);
  return files;
}

std::vector<std::string> files_of_entry(const std::string& entry) {
  std::error_code error;
  if (entry.empty()) throw DataError("an empty path in data.train or data.val");
  std::vector<std::string> files;
  if (fs::is_directory(entry, error)) {
    files = files_in_directory(entry);
  } else if (!fs::exists(entry, error) && entry.find_first_of("*?[") != std::string::npos) {
    files = files_of_pattern(entry);
  } else {
    return {entry};
  }
  std::ranges::sort(files);
  return files;
}

/// What tells a file from others, whatever it is called.
std::optional<std::pair<dev_t, ino_t>> identity(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return std::pair(status.st_dev, status.st_ino);
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)), temporary_(path_ + ".tmp") {
  file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file_ < 0) throw DataError("cannot create {}: {}", temporary_, reason(errno));
}

AtomicFile::~AtomicFile() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write_all(file_, temporary_, bytes, -1);
}

void AtomicFile::write_front(std::span<const std::byte> bytes) {
  write_all(file_, temporary_, bytes, 0);
}

void AtomicFile::commit() {
  if (::fsync(file_) != 0) throw DataError("cannot sync {}: {}", temporary_, reason(errno));
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    throw DataError("cannot rename {} to {}: {}", temporary_, path_, reason(errno));
  }
  ::close(std::exchange(file_, -1));
  sync_folder_of(path_);
}

CorpusFiles find_corpus_files(std::span<const std::string> entries) {
  if (entries.empty()) throw DataError("no data files are named; set data.train");
  CorpusFiles found;
  for (const std::string& entry : entries) {
    std::ranges::move(files_of_entry(entry), std::back_inserter(found.paths));
  }
  found.kind = is_shard(found.paths.front()) ? CorpusKind::kShards : CorpusKind::kText;
  std::set<std::string> seen;
  for (const std::string& path : found.paths) {
    if (is_shard(path) != is_shard(found.paths.front())) {
      throw DataError("{} and {} are mixed: a corpus is either .bin token shards or text",
                      found.paths.front(), path);
    }
    std::error_code error;
    const std::string canonical = fs::weakly_canonical(path, error).string();
    if (!seen.insert(error ? path : canonical).second) {
      throw DataError("{} is named twice; its tokens would count double", path);
    }
  }
  return found;
}

std::optional<std::string> shared_file(const CorpusFiles& a, const CorpusFiles& b) {
  std::set<std::pair<dev_t, ino_t>> files;
  for (const std::string& path : b.paths) {
    if (const auto file = identity(path)) files.insert(*file);
  }
  for (const std::string& path : a.paths) {
    if (const auto file = identity(path); file && files.contains(*file)) return path;
  }
  return std::nullopt;
}

}  // namespace carousel
