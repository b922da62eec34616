// Tests under a checker of memory or of races, which tests/core/cuda/sanitize.sh runs.
#pragma once

#include <cstdlib>
#include <string_view>

namespace carousel::testing {

/// Whether CAROUSEL_MEMORY_CHECK=1. A kernel then takes hundreds of times as long, and all that
/// counts is that it does everything that it can do, not how often: tests that would run for
/// minutes take cases of a tenth of the work, which still enter every kernel.
inline bool under_checker() {
  const char* const value = std::getenv("CAROUSEL_MEMORY_CHECK");
  return value != nullptr && std::string_view(value) == "1";
}

}  // namespace carousel::testing
