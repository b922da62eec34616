// Calls of NCCL that can be left. Those that connect ranks, as the first collective of each kind
// does too, wait for the others, and without end; so communicators are not blocking ones.
#pragma once

#include <nccl.h>

#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/comm/socket.h"

namespace carousel::comm {

/// Throws PeerError if the call failed.
inline void check_call(ncclResult_t result, const char* call) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  throw PeerError("{}: {}", call, ncclGetErrorString(result));
}

/// Waits until NCCL has done all of a call but what is the device's. Throws PeerError if it failed,
/// or with the first text of `trouble()` that is not empty.
template <class Trouble>
void settle(ncclComm_t comm, ncclResult_t result, const char* call, Trouble&& trouble) {
  while (result == ncclInProgress) {
    if (const std::string problem = trouble(); !problem.empty()) throw PeerError("{}", problem);
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    if (ncclCommGetAsyncError(comm, &result) != ncclSuccess) result = ncclInternalError;
  }
  check_call(result, call);
}

/// Ends what the device does for the communicator. NCCL waits for its own threads, too, and of
/// these one that connects ranks may wait for one that hangs: it is left to the process's end.
inline void abort_communicator(ncclComm_t comm) noexcept {
  if (comm == nullptr) return;
  std::packaged_task<void()> task([comm] { ncclCommAbort(comm); });
  const std::future<void> done = task.get_future();
  std::thread(std::move(task)).detach();
  done.wait_for(std::chrono::seconds(2));
}

/// Gives the communicator back, whose collectives are done; aborts it if that takes too long.
inline void destroy_communicator(ncclComm_t comm, Milliseconds timeout) noexcept {
  if (comm == nullptr) return;
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  try {
    settle(comm, ncclCommFinalize(comm), "ncclCommFinalize", [&] {
      return std::chrono::steady_clock::now() < deadline ? "" : "not done within the time-out";
    });
  } catch (const PeerError&) {
    return abort_communicator(comm);
  }
  ncclCommDestroy(comm);
}

}  // namespace carousel::comm
