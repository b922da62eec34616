#include "core/base/error.h"

namespace carousel {

void throw_error(ExitCode code, const std::string& message) {
  switch (code) {
    case ExitCode::kUsage:
      throw UsageError("{}", message);
    case ExitCode::kData:
      throw DataError("{}", message);
    case ExitCode::kCheckpoint:
      throw CheckpointError("{}", message);
    case ExitCode::kOutOfMemory:
      throw OutOfMemoryError("{}", message);
    case ExitCode::kNonFinite:
      throw NonFiniteError("{}", message);
    case ExitCode::kPeer:
      throw PeerError("{}", message);
    case ExitCode::kPreempted:
      throw Preempted("{}", message);
    case ExitCode::kOk:
    case ExitCode::kInternal:
      break;
  }
  throw InternalError("{}", message);
}

void detail::check_failed(const char* condition, const char* file, int line,
                          const std::string& message) {
  throw InternalError("{} (check `{}` failed at {}:{})", message, condition, file, line);
}

}  // namespace carousel
