#include "core/base/error.h"

namespace carousel::detail {

void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  throw InternalError("{} (check `{}` failed at {}:{})", message, condition, file, line);
}

}  // namespace carousel::detail
