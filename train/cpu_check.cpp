// Stops the program with a sentence, rather than with an illegal instruction, on a CPU that is too
// old for it.
#include <unistd.h>

#include <cstdio>

#include "core/base/error.h"
#include "train/cpu_features.h"

namespace carousel {
namespace {

// Runs before all other initialisers of the program, since those may already use what is missing;
// that is why this is the one place outside main() which ends the process.
[[gnu::constructor(101)]] void require_cpu_features() {
  const char* missing = missing_feature(cpu_features());
  if (missing == nullptr) return;
  std::fprintf(stderr,
               "error: this carousel was built for %s, but this CPU has no %s; rebuild it with "
               "-DCAROUSEL_CPU_ARCH=x86-64-v2 (slower), or use a newer machine\n",
               CAROUSEL_CPU_ARCH, missing);
  _exit(static_cast<int>(ExitCode::kUsage));
}

}  // namespace
}  // namespace carousel
