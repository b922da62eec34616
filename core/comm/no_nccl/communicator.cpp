#include "core/base/error.h"
#include "core/comm/backends.h"

namespace carousel::comm {

std::unique_ptr<Communicator> make_nccl(const GroupOptions&, std::unique_ptr<Store>) {
  throw UsageError(
      "this build has no NCCL, which several GPUs need; install libnccl-dev and configure again "
      "with CUDA");
}

bool has_nccl() { return false; }

}  // namespace carousel::comm
