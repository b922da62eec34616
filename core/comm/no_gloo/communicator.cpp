#include "core/base/error.h"
#include "core/comm/backends.h"

namespace carousel::comm {

std::unique_ptr<Communicator> make_gloo(const GroupOptions&, std::unique_ptr<Store>) {
  throw UsageError(
      "this build has no gloo, which several processes on the CPU need; install libgloo-dev and "
      "configure again");
}

bool has_gloo() { return false; }

}  // namespace carousel::comm
