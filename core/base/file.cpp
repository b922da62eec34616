#include "core/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "core/base/error.h"

namespace carousel {
namespace {

std::string_view remedy(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return "free some space there, or choose another directory";
    case EFBIG:
      return "raise the limit on file sizes (ulimit -f), or choose another file system";
    case EROFS:
      return "the file system is read-only, choose another directory";
    case EACCES:
    case EPERM:
      return "check the owner and the permissions of the file and of its directory";
    case ENOENT:
      return "check the path";
    case ENOTDIR:
      return "a file stands where a directory is needed, move it away";
    case EISDIR:
    case EEXIST:
    case ENOTEMPTY:
      return "something else has that name, move it away";
    case EMFILE:
    case ENFILE:
      return "raise the limit on open files (ulimit -n)";
    default:
      return "check the disk and the system's log";
  }
}

}  // namespace

std::string io_error(std::string_view action, const std::filesystem::path& path, int error) {
  return fmt::format("cannot {} '{}': {}; {}", action, path.string(),
                     std::generic_category().message(error), remedy(error));
}

MappedFile::MappedFile(std::filesystem::path path, ExitCode failure) : path_(std::move(path)) {
  // O_NONBLOCK: opening a FIFO must not wait for its writer.
  const int descriptor = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) throw_error(failure, io_error("open", path_, errno));
  struct stat status {};
  int error = ::fstat(descriptor, &status) == 0 ? 0 : errno;
  const bool regular = error == 0 && S_ISREG(status.st_mode);
  if (regular && status.st_size > 0) {
    size_ = static_cast<std::size_t>(status.st_size);
    void* data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED) error = errno;
    data_ = static_cast<const std::byte*>(data);
  }
  ::close(descriptor);
  if (error != 0) throw_error(failure, io_error("map", path_, error));
  if (!regular) {
    throw_error(failure, fmt::format("'{}' is not a regular file; check the path", path_.string()));
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::forget(std::size_t offset, std::size_t bytes) const {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t begin = (offset + page - 1) / page * page;
  const std::size_t end = (offset + bytes) / page * page;
  // Only advice: if it fails, the pages stay.
  if (begin < end) ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

OutputFile::OutputFile(std::filesystem::path path, Observer observer)
    : path_(std::move(path)), observer_(std::move(observer)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (descriptor_ < 0) throw CheckpointError("{}", io_error("create", path_, errno));
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::write(std::span<const std::byte> bytes) {
  CAROUSEL_CHECK(descriptor_ >= 0, "write to '{}' after finish()", path_.string());
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  while (!bytes.empty()) {
    const ssize_t written =
        ::write(descriptor_, bytes.data(), std::min<std::size_t>(bytes.size(), kPiece));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0)
      throw CheckpointError("{}", io_error("write", path_, written < 0 ? errno : EIO));
    const auto done = static_cast<std::size_t>(written);
    if (observer_) observer_(bytes.first(done));
    bytes = bytes.subspan(done);
  }
}

void OutputFile::finish() {
  CAROUSEL_CHECK(descriptor_ >= 0, "finish() of '{}' twice", path_.string());
  if (::fsync(descriptor_) != 0) throw CheckpointError("{}", io_error("sync", path_, errno));
  if (::close(std::exchange(descriptor_, -1)) != 0) {
    throw CheckpointError("{}", io_error("close", path_, errno));
  }
}

void replace_file(const std::filesystem::path& path, const std::function<void(OutputFile&)>& fill) {
  std::filesystem::path temporary = path;
  temporary += ".tmp";
  OutputFile file(temporary);
  try {
    fill(file);
    file.finish();
    std::error_code error;
    std::filesystem::rename(temporary, path, error);
    if (error) throw CheckpointError("{}", io_error("rename to", path, error.value()));
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw;
  }
  const std::filesystem::path parent = path.parent_path();
  sync_directory(parent.empty() ? "." : parent);
}

void sync_directory(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw CheckpointError("{}", io_error("open", path, errno));
  const int error = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  // Some network file systems cannot sync a directory and say EINVAL: nothing more can be done.
  if (error != 0 && error != EINVAL) throw CheckpointError("{}", io_error("sync", path, error));
}

}  // namespace carousel
