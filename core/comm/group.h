// How the processes of a run become a group.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/comm/communicator.h"

namespace carousel::comm {

/// A process's place in its run, and where the run meets.
struct Placement {
  int rank = 0;
  int world_size = 1;
  std::string master_addr = "127.0.0.1";
  std::uint16_t master_port = 29500;
  bool serve = true;   ///< whether rank 0 starts the store's server; else another process has it
  std::string prefix;  ///< of all keys: tells runs and attempts on one server apart
  std::string gpu;     ///< unique_id() of the GPU that this process alone may use; empty: none
};

/// All processes concerned find it or hear of it, so that it is enough if one of them tells.
class KnownToAll : public UsageError {
 public:
  using UsageError::UsageError;
};

/// A group and, in rank 0, the server of its store.
class Group {
 public:
  /// Meets the other ranks and connects to them: over gloo for device.type kCpu, NCCL for kCuda.
  /// `identity` must be the same in all ranks: what they would compute (configuration, build), as
  /// lines, of which the first that differs is shown.
  /// `join_timeout` is the time for all ranks to arrive, `timeout` that of each collective.
  /// Throws PeerError that lists the ranks still missing; KnownToAll for two processes of one rank
  /// (a UsageError in the second) or on one GPU, different world sizes or identities: in every
  /// rank, but from rank 0's point of view; UsageError for a port that is taken or an unknown host.
  Group(const Placement& placement, Device device, const std::string& identity,
        Milliseconds join_timeout, Milliseconds timeout);
  /// Leaves; rank 0 waits a moment for the others to be done with the store.
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  Communicator& communicator() { return *communicator_; }

 private:
  bool try_to_meet(const std::string& identity, Milliseconds timeout, bool may_retry);
  void leave(Milliseconds patience) noexcept;

  Placement placement_;
  std::unique_ptr<StoreServer> server_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Communicator> communicator_;
};

}  // namespace carousel::comm
