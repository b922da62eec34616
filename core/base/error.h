// Errors and checks. Every error names the offending value, the place and the remedy, and carries
// the exit code that main() returns for it; nothing below main() ever calls exit().
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace carousel {

/// Process exit codes, part of the command line's contract (scripts and launchers test them).
enum class ExitCode : int {
  kOk = 0,
  kUsage = 2,        ///< bad command line, configuration or environment
  kData = 3,         ///< unreadable, malformed or unsuitable training data
  kCheckpoint = 4,   ///< no usable checkpoint, or one that contradicts the run
  kOutOfMemory = 5,  ///< host or device memory exhausted
  kNonFinite = 6,    ///< the loss or a gradient became NaN or infinite
  kPeer = 7,         ///< another rank failed or timed out
  kInternal = 70,    ///< a bug in Carousel (sysexits' EX_SOFTWARE)
  kPreempted = 75,   ///< saved and stopped on request; start again to continue
};

/// Base of all exceptions thrown by Carousel.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// One class per exit code, so that callers can catch what they can handle.
/// `throw DataError("{}: {} bytes, expected {}", path, got, want)` formats with fmt.
template <ExitCode Code>
class CodedError : public Error {
 public:
  template <class... Args>
  explicit CodedError(fmt::format_string<Args...> format, Args&&... args)
      : Error(Code, fmt::format(format, std::forward<Args>(args)...)) {}
};

using UsageError = CodedError<ExitCode::kUsage>;
using DataError = CodedError<ExitCode::kData>;
using CheckpointError = CodedError<ExitCode::kCheckpoint>;
using OutOfMemoryError = CodedError<ExitCode::kOutOfMemory>;
using NonFiniteError = CodedError<ExitCode::kNonFinite>;
using PeerError = CodedError<ExitCode::kPeer>;
using InternalError = CodedError<ExitCode::kInternal>;
using Preempted = CodedError<ExitCode::kPreempted>;

/// Throws the CodedError of `code`, for code that serves several kinds of callers.
[[noreturn]] void throw_error(ExitCode code, const std::string& message);

namespace detail {
[[noreturn]] void check_failed(const char* condition, const char* file, int line,
                               const std::string& message);
}  // namespace detail

}  // namespace carousel

/// Verifies a programming contract; on failure throws InternalError with the condition, the place
/// and an fmt-formatted explanation. Always on. For users' mistakes throw a typed error instead.
#define CAROUSEL_CHECK(condition, ...)                                 \
  do {                                                                 \
    if (!(condition)) [[unlikely]] {                                   \
      ::carousel::detail::check_failed(#condition, __FILE__, __LINE__, \
                                       ::fmt::format(__VA_ARGS__));    \
    }                                                                  \
  } while (false)
