// Collective operations over the ranks of a run. Backends: gloo (CPU, processes), NCCL (CUDA,
// processes) and threads of one process (CPU, for tests).
//
// All ranks call the same collectives in the same order. Collectives on tensors are asynchronous:
// they run in order beside the caller's own work, starting when the work that the caller has queued
// on the tensors' device so far is done.
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/comm/monitor.h"
#include "core/comm/store.h"
#include "core/tensor/tensor.h"

namespace carousel::comm {

/// How sums are ordered.
enum class Sum {
  kFast,  ///< as the backend likes: the same on all ranks, but not for another number of ranks
  kTree,  ///< pairwise by halves, ((0+1)+(2+3))+…, so that with a power of two of ranks each
          ///< subtree is what a smaller number of ranks would have summed locally
};

/// A collective that was started. Copies refer to the same one.
class Work {
 public:
  class State {
   public:
    virtual ~State() = default;
    virtual void wait() = 0;
  };

  Work() = default;  ///< one that is done
  explicit Work(std::shared_ptr<State> state) : state_(std::move(state)) {}
  /// Makes the result visible to what the caller does next on the tensors' device: on the CPU it
  /// blocks until the collective is done, on CUDA the compute stream waits and the host does not.
  /// Throws PeerError if the collective failed; on CUDA see Communicator::check().
  void wait() const {
    if (state_ != nullptr) state_->wait();
  }

 private:
  std::shared_ptr<State> state_;
};

struct GroupOptions {
  int rank = 0;
  int world_size = 1;
  Milliseconds timeout{300000};  ///< of every collective
  Device device = kCpu;          ///< of the tensors
};

/// Used by one thread, but for publish() and await(). Failures of peers are PeerErrors that name
/// the collective and, as far as it can be told, the rank to blame; after one, only abort() and the
/// destructor may be called.
class Communicator {
 public:
  /// `store` is shared by the ranks and holds nothing of another group.
  Communicator(const GroupOptions& options, std::unique_ptr<Store> store);
  /// Leaves the group. Ranks that are in a collective then fail.
  virtual ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return options_.rank; }
  int world_size() const { return options_.world_size; }
  Device device() const { return options_.device; }

  /// t = Σ over ranks, in place; f32 or f64. `label` names the call in errors.
  Work all_reduce(const Tensor& t, const char* label, Sum order = Sum::kFast);
  /// t (N) holds a piece of N/world_size elements for each rank; this rank's piece becomes the sum
  /// over ranks, the others are unspecified afterwards. f32 or f64.
  Work reduce_scatter(const Tensor& t, const char* label, Sum order = Sum::kFast);
  /// t (N): every rank's own piece of N/world_size elements is copied to all; any dtype.
  Work all_gather(const Tensor& t, const char* label);
  /// t = rank `root`'s; any dtype.
  Work broadcast(const Tensor& t, int root, const char* label);

  /// Collective: t, the whole of its storage and of one size on all ranks, will take part in many
  /// collectives, as a whole or in parts; parts of up to `largest` elements will be summed. They
  /// may then be faster. The storage is held until the end.
  virtual void share(const Tensor& /*t*/, std::int64_t /*largest*/) {}

  /// (world_size, values.size()) f64 on the tensors' device: the values of all ranks. Reading it
  /// waits for the device, this call does not.
  Tensor gather_values(std::span<const double> values, const char* label);
  /// values = Σ over ranks, summed in the order of ranks; blocks until done.
  void sum_on_host(std::span<double> values, const char* label);
  /// The strings of all ranks, in order: for small things, through the store. Blocks.
  std::vector<std::string> gather(const std::string& mine, const char* label);
  /// Returns when all ranks have called it.
  void barrier(const char* label) { gather("", label); }

  /// A value for other ranks under a key of the group, and the wait for one: not collective, and
  /// from any thread. await() throws PeerError, which names `what`, at the time-out and when a rank
  /// fails.
  void publish(const std::string& key, const std::string& value) { mail_->set(key, value); }
  std::string await(const std::string& key, const char* what);

  /// Whether a rank or a collective is known to have failed.
  bool failed() { return monitor_.failure().has_value(); }
  /// Throws PeerError if a rank or a collective has failed by now: for callers that have just
  /// waited for the device.
  void check();
  /// Tells the other ranks that this one stops, and why, and ends what is in flight: they fail
  /// within about a second. Does not throw.
  void abort(const std::string& reason) noexcept;

  /// "nccl", "gloo", "threads".
  virtual const char* backend() const = 0;

 protected:
  const GroupOptions& options() const { return options_; }
  Store& store() { return *store_; }
  Monitor& monitor() { return monitor_; }

  // Called with sound arguments and in order, `ticket` being the collective in the monitor's books.
  virtual Work start_all_reduce(const Tensor& t, Sum order, Monitor::Ticket ticket) = 0;
  virtual Work start_reduce_scatter(const Tensor& t, Sum order, Monitor::Ticket ticket) = 0;
  virtual Work start_all_gather(const Tensor& t, Monitor::Ticket ticket) = 0;
  virtual Work start_broadcast(const Tensor& t, int root, Monitor::Ticket ticket) = 0;
  /// Ends what is in flight, from any thread; what waits for it must return.
  virtual void interrupt() noexcept = 0;

  /// To be called by the constructors and destructors of the backends, since interrupt() is theirs.
  void start_monitor();
  void stop_monitor() noexcept;

 private:
  void check_tensor(const Tensor& t, const char* label, bool summed, bool pieces) const;

  GroupOptions options_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Store> mail_;  // of publish() and await(), whose waits must not hold gather() up
  Monitor monitor_;
  std::int64_t gathers_ = 0;
};

}  // namespace carousel::comm
