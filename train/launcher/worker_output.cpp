#include "train/launcher/worker_output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <utility>

#include "core/base/error.h"
#include "core/base/file.h"

namespace carousel {
namespace {

constexpr std::size_t kMaxLine = std::size_t{1} << 20;  // longer ones are cut into several
constexpr int kMaxErrorLines = 20;

// The terminal or pipe at `descriptor`, opened once more for writes that do not block: that is no
// property of the given one alone, but of all that it is shared with. -1 for what is neither.
int open_without_blocking(int descriptor) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return -1;
  if (!S_ISFIFO(status.st_mode) && !S_ISCHR(status.st_mode)) return -1;
  return ::open(fmt::format("/proc/self/fd/{}", descriptor).c_str(),
                O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
}

// A reader that has gone away must not end the training, nor must a full disk behind a log.
void write_all(int descriptor, std::string_view bytes, const AwaitConsole& await_console) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(descriptor, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      await_console(descriptor);
      continue;
    }
    if (n <= 0) return;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace

WorkerOutput::WorkerOutput(std::string prefix, int console, const std::string& file,
                           AwaitConsole await_console)
    : prefix_(std::move(prefix)), await_console_(std::move(await_console)), console_(console) {
  if (!file.empty()) {
    file_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file_ < 0) throw UsageError("{}", io_error("create", file, errno));
  }
  own_console_ = open_without_blocking(console);
  if (own_console_ >= 0) console_ = own_console_;
}

WorkerOutput::~WorkerOutput() {
  if (file_ >= 0) ::close(file_);
  if (own_console_ >= 0) ::close(own_console_);
}

void WorkerOutput::write(std::string_view bytes) {
  partial_ += bytes;
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = partial_.find('\n', begin);
    if (end == std::string::npos) break;
    line(std::string_view(partial_).substr(begin, end - begin));
    begin = end + 1;
  }
  partial_.erase(0, begin);
  if (partial_.size() >= kMaxLine) finish();
}

void WorkerOutput::finish() {
  if (!partial_.empty()) line(partial_);
  partial_.clear();
}

void WorkerOutput::line(std::string_view text) {
  const std::string whole = std::string(text) + "\n";
  // In one call: lines stay whole.
  if (console_ >= 0) write_all(console_, prefix_ + whole, await_console_);
  if (file_ >= 0) write_all(file_, whole, await_console_);
  constexpr std::string_view kError = "error: ";
  if (!text.starts_with(kError) || error_lines_ == kMaxErrorLines) return;
  if (error_lines_++ > 0) errors_ += '\n';
  errors_ += text.substr(kError.size());
}

}  // namespace carousel
