// The in-process backend: ranks are threads. For tests.
#pragma once

#include <memory>

#include "core/comm/communicator.h"

namespace carousel::comm {

/// Where the ranks of one group meet; shared by their threads.
class ThreadGroup {
 public:
  explicit ThreadGroup(int world_size);
  ~ThreadGroup();

  /// A member, for one thread. Each rank may be taken once.
  std::unique_ptr<Communicator> join(int rank, Milliseconds timeout = Milliseconds{30000});

 private:
  class Meeting;
  class Member;
  int world_size_;
  MemoryStore store_;
  std::shared_ptr<Meeting> meeting_;
};

}  // namespace carousel::comm
