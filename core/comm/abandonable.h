// Calls that nothing can interrupt, such as those that set NCCL up.
#pragma once

#include <functional>
#include <future>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

#include "core/base/error.h"
#include "core/comm/socket.h"

namespace carousel::comm {

/// Calls `work` in a thread of its own, waits until it returns, and returns or throws what it does.
/// Meanwhile asks `trouble` ten times a second whether there is a reason to wait no longer: at the
/// first that is not empty, throws PeerError with it and leaves the thread to itself. So `work`
/// must own all that it touches.
template <class Work>
std::invoke_result_t<Work&> call_abandonably(Work work,
                                             const std::function<std::string()>& trouble) {
  constexpr Milliseconds kLook{100};
  std::packaged_task<std::invoke_result_t<Work&>()> task(std::move(work));
  auto result = task.get_future();
  std::thread(std::move(task)).detach();
  while (result.wait_for(kLook) != std::future_status::ready) {
    if (const std::string problem = trouble(); !problem.empty()) throw PeerError("{}", problem);
  }
  return result.get();
}

}  // namespace carousel::comm
