#include <cuda_runtime_api.h>
#include <nccl.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "core/base/log.h"
#include "core/comm/backends.h"
#include "core/comm/cuda/nccl_calls.h"
#include "core/comm/cuda/peer_memory.h"
#include "core/comm/cuda/tree_sum.h"
#include "core/cuda/error.h"
#include "core/cuda/stream.h"

namespace carousel::comm {
namespace {

ncclDataType_t type_of(DType dtype) { return dtype == DType::kF64 ? ncclFloat64 : ncclFloat32; }

class Event {
 public:
  Event() { CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(cudaStream_t stream) { CUDA_CHECK(cudaEventRecord(event_, stream)); }
  void hold_up(cudaStream_t stream) const { CUDA_CHECK(cudaStreamWaitEvent(stream, event_)); }
  /// True also after an error, of which the next checked call tells.
  bool reached() const { return cudaEventQuery(event_) != cudaErrorNotReady; }

 private:
  cudaEvent_t event_ = nullptr;
};

// Collectives run on a stream of their own: through NCCL, and on tensors that were shared, where
// all GPUs reach each other's memory, through the copy engines, which leave the multiprocessors to
// the backward that goes on meanwhile.
class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(const GroupOptions& options, std::unique_ptr<Store> store)
      : Communicator(options, std::move(store)) {
    start_monitor();  // first of all: the others wait for this rank, and hear of what ends it
    try {
      monitor().enter("starting the GPU");
      create_stream();
      connect();
    } catch (const std::exception& e) {
      monitor().report(e.what());
      stop_monitor();
      interrupt();
      throw;
    }
    watchdog_ = std::thread([this] { watch(); });
  }

  ~NcclCommunicator() override {
    const cuda::Stream compute(device());
    cudaStreamSynchronize(stream_);  // the monitor and the watchdog end it if it never comes
    stop_monitor();
    {
      const std::lock_guard lock(stop_mutex_);
      stopping_ = true;
    }
    stop_.notify_all();
    watchdog_.join();
    // Every collective is done here, and the others need nothing more of this rank for theirs.
    peers_.reset();
    destroy_communicator(comm_, options().timeout);
    cudaStreamDestroy(stream_);
  }

  const char* backend() const override { return "nccl"; }

  void share(const Tensor& t, std::int64_t largest) override {
    if (peers_ == nullptr || t.bytes() < PeerMemory::kLeast) return;
    const std::string problem =
        peers_->share(t, static_cast<std::size_t>(largest) * size_of(t.dtype()), gathering());
    if (!problem.empty() && rank() == 0) {
      log::info("NCCL's kernels move {:.1f} MiB of {}: {}",
                static_cast<double>(t.bytes()) / (1 << 20), name_of(t.dtype()), problem);
    }
  }

 private:
  struct Running {
    Monitor::Ticket ticket;
    Tensor tensor;  // stays allocated until the collective is done with it
    Tensor staging;
    std::shared_ptr<Event> done;
    Clock::time_point begin;
  };

  class Pending final : public Work::State {
   public:
    Pending(NcclCommunicator& owner, std::shared_ptr<Event> done)
        : owner_(owner), done_(std::move(done)) {}
    void wait() override {
      owner_.check();
      done_->hold_up(cuda::Stream(owner_.device()).handle());
    }

   private:
    NcclCommunicator& owner_;
    std::shared_ptr<Event> done_;
  };

  void create_stream() {
    const cuda::Stream compute(device());
    int lowest = 0;
    int highest = 0;
    CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
    CUDA_CHECK(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest));
  }

  void connect() {
    const Monitor::Ticket ticket = monitor().enter("connecting the ranks");
    try {
      const ncclComm_t comm = init_communicator();
      const std::lock_guard lock(mutex_);
      comm_ = comm;
    } catch (const PeerError& e) {
      throw PeerError("{}", monitor().explain(ticket, e.what()));
    }
    std::string problem;
    auto peers = PeerMemory::connect(rank(), world_size(), device(), gathering(), problem);
    if (!problem.empty() && rank() == 0) log::info("NCCL's kernels move all tensors: {}", problem);
    const std::lock_guard lock(mutex_);
    peers_ = std::move(peers);
  }

  // Until this returns interrupt() has no communicator to abort: the set-up looks out for itself.
  ncclComm_t init_communicator() {
    const auto deadline = Clock::now() + options().timeout;
    const auto trouble = [&]() -> std::string {
      if (monitor().failure()) return "interrupted";
      return Clock::now() < deadline ? "" : late();
    };
    ncclUniqueId id{};
    if (rank() == 0) {
      check_call(ncclGetUniqueId(&id), "ncclGetUniqueId");
      store().set("nccl", {id.internal, sizeof id.internal});
    }
    std::optional<std::string> text;
    while (!(text = store().get("nccl", Milliseconds{200}))) {
      if (const std::string problem = trouble(); !problem.empty()) throw PeerError("{}", problem);
    }
    if (text->size() != sizeof id.internal) {
      throw PeerError(
          "rank 0 sent {} bytes for NCCL's address, not {}; start all ranks with the "
          "same program",
          text->size(), sizeof id.internal);
    }
    std::memcpy(id.internal, text->data(), text->size());
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t comm = nullptr;
    const ncclResult_t result = ncclCommInitRankConfig(&comm, world_size(), id, rank(), &config);
    try {
      comm::settle(comm, result, "ncclCommInitRankConfig", trouble);
    } catch (...) {
      abort_communicator(comm);
      throw;
    }
    return comm;
  }

  PeerMemory::Gather gathering() {
    return [this](const std::string& mine) { return gather(mine, "addresses"); };
  }

  bool shared(const Tensor& t) const { return peers_ != nullptr && peers_->covers(t); }

  // The watchdog sees a collective once the device has it.
  void settle(ncclResult_t result, const char* call) const {
    const auto deadline = Clock::now() + options().timeout;
    comm::settle(comm_, result, call, [&]() -> std::string {
      if (interrupted_) return "the group was left";
      return Clock::now() < deadline ? "" : late();
    });
  }

  std::string late() const {
    return fmt::format("not done within {} ms", options().timeout.count());
  }

  // Runs `calls` on the stream behind what the caller has queued, and in order.
  template <class Calls>
  Work start(const Tensor& t, Monitor::Ticket ticket, Calls&& calls, Tensor staging = {}) {
    check();
    try {
      return queue(t, ticket, std::forward<Calls>(calls), std::move(staging));
    } catch (const PeerError& e) {
      monitor().blame(monitor().explain(ticket, e.what()));
      interrupt();
      throw PeerError("{}", *monitor().failure());
    }
  }

  template <class Calls>
  Work queue(const Tensor& t, const Monitor::Ticket& ticket, Calls&& calls, Tensor staging) {
    const cuda::Stream compute(device());
    const std::lock_guard lock(mutex_);
    if (interrupted_) throw PeerError("the group was left");
    forget_finished();
    Event ready;
    ready.record(compute.handle());
    ready.hold_up(stream_);
    calls();
    auto done = std::make_shared<Event>();
    done->record(stream_);
    running_.push_back({ticket, t, std::move(staging), done, Clock::now()});
    return Work(std::make_shared<Pending>(*this, std::move(done)));
  }

  Work start_all_reduce(const Tensor& t, Sum order, Monitor::Ticket ticket) override {
    const auto count = static_cast<std::size_t>(t.numel());
    if (shared(t)) {
      return start(t, std::move(ticket), [&] {
        add_pieces(t, peers_->exchange(t, stream_));
        peers_->gather(t, stream_);
      });
    }
    if (order == Sum::kFast) {
      return start(t, std::move(ticket), [&] {
        settle(ncclAllReduce(t.raw(), t.raw(), count, type_of(t.dtype()), ncclSum, comm_, stream_),
               "ncclAllReduce");
      });
    }
    const Tensor pieces = new_staging(t);
    return start(
        t, std::move(ticket),
        [&] {
          tree_reduce_scatter(t, pieces);
          gather_pieces(t);
        },
        pieces);
  }

  Work start_reduce_scatter(const Tensor& t, Sum order, Monitor::Ticket ticket) override {
    if (shared(t)) {
      return start(t, std::move(ticket), [&] { add_pieces(t, peers_->exchange(t, stream_)); });
    }
    if (order == Sum::kFast) {
      return start(t, std::move(ticket), [&] {
        settle(ncclReduceScatter(t.raw(), piece(t, rank()),
                                 static_cast<std::size_t>(t.numel() / world_size()),
                                 type_of(t.dtype()), ncclSum, comm_, stream_),
               "ncclReduceScatter");
      });
    }
    const Tensor pieces = new_staging(t);
    return start(
        t, std::move(ticket), [&] { tree_reduce_scatter(t, pieces); }, pieces);
  }

  Work start_all_gather(const Tensor& t, Monitor::Ticket ticket) override {
    return start(t, std::move(ticket), [&] {
      if (shared(t)) {
        peers_->gather(t, stream_);
      } else {
        gather_pieces(t);
      }
    });
  }

  Work start_broadcast(const Tensor& t, int root, Monitor::Ticket ticket) override {
    return start(t, std::move(ticket), [&] {
      settle(ncclBroadcast(t.raw(), t.raw(), t.bytes(), ncclInt8, root, comm_, stream_),
             "ncclBroadcast");
    });
  }

  // The pieces of all ranks for this one, exchanged, then summed in order.
  void tree_reduce_scatter(const Tensor& t, const Tensor& pieces) {
    const auto bytes = t.bytes() / static_cast<std::size_t>(world_size());
    check_call(ncclGroupStart(), "ncclGroupStart");
    for (int r = 0; r < world_size(); ++r) {
      check_call(ncclSend(piece(t, r), bytes, ncclInt8, r, comm_, stream_), "ncclSend");
      check_call(ncclRecv(piece(pieces, r), bytes, ncclInt8, r, comm_, stream_), "ncclRecv");
    }
    settle(ncclGroupEnd(), "ncclGroupEnd");
    std::vector<const void*> received;
    for (int r = 0; r < world_size(); ++r) received.push_back(piece(pieces, r));
    add_pieces(t, received);
  }

  // Leaves the sum of all ranks' pieces in this rank's own.
  void add_pieces(const Tensor& t, const std::vector<const void*>& pieces) {
    const std::int64_t n = t.numel() / world_size();
    void* const own = piece(t, rank());
    if (t.dtype() == DType::kF32) {
      tree_sum(pieces, n, static_cast<float*>(own), stream_);
    } else {
      tree_sum(pieces, n, static_cast<double*>(own), stream_);
    }
  }

  void gather_pieces(const Tensor& t) {
    settle(
        ncclAllGather(piece(t, rank()), t.raw(), t.bytes() / static_cast<std::size_t>(world_size()),
                      ncclInt8, comm_, stream_),
        "ncclAllGather");
  }

  std::byte* piece(const Tensor& t, int r) const {
    return static_cast<std::byte*>(t.raw()) +
           t.bytes() / static_cast<std::size_t>(world_size()) * static_cast<std::size_t>(r);
  }

  Tensor new_staging(const Tensor& t) const {
    CAROUSEL_CHECK(world_size() <= kMaxTreeRanks, "a tree over {} ranks", world_size());
    const RoleScope role(Role::kWorkspace);
    return empty_like(t);
  }

  void forget_finished() {
    while (!running_.empty() && running_.front().done->reached()) running_.pop_front();
  }

  // Looks after collectives on the device, of which no call tells: time-outs and NCCL's own errors.
  void watch() {
    constexpr Milliseconds kLook{100};
    std::unique_lock lock(stop_mutex_);
    while (!stop_.wait_for(lock, kLook, [&] { return stopping_; })) {
      if (interrupted_) {
        // Again and again: ranks that are still alive may write these counters once more.
        if (peers_ != nullptr) peers_->release_waits();
      } else if (const auto trouble = look()) {
        monitor().blame(monitor().explain(trouble->ticket, trouble->text));
        interrupt();
      }
    }
  }

  struct Trouble {
    Monitor::Ticket ticket;
    std::string text;
  };

  std::optional<Trouble> look() {
    const std::unique_lock lock(mutex_, options().timeout);
    // A call of CUDA's does not return: the first launch of a kernel may wait for all that the GPU
    // does, and that for another rank.
    if (!lock) return Trouble{monitor().newest(), late()};
    forget_finished();
    if (interrupted_) return std::nullopt;
    const auto ticket = running_.empty() ? Monitor::Ticket{} : running_.front().ticket;
    ncclResult_t state = ncclSuccess;
    if (ncclCommGetAsyncError(comm_, &state) != ncclSuccess) state = ncclInternalError;
    if (state != ncclSuccess && state != ncclInProgress) {
      return Trouble{ticket, ncclGetErrorString(state)};
    }
    if (running_.empty() || Clock::now() - running_.front().begin <= options().timeout) {
      return std::nullopt;
    }
    return Trouble{ticket, late()};
  }

  void interrupt() noexcept override {
    interrupted_ = true;
    // Whoever holds the mutex for long waits for what the GPU does, which only this ends.
    const std::unique_lock lock(mutex_, std::chrono::seconds(2));
    if (peers_ != nullptr) peers_->release_waits();
    abort_communicator(comm_.exchange(nullptr));
  }

  cudaStream_t stream_ = nullptr;
  std::timed_mutex mutex_;  // of the next three, but for what interrupts
  std::atomic<ncclComm_t> comm_ = nullptr;
  std::unique_ptr<PeerMemory> peers_;
  std::deque<Running> running_;
  std::atomic<bool> interrupted_{false};
  std::mutex stop_mutex_;  // of the next two
  std::condition_variable stop_;
  bool stopping_ = false;
  std::thread watchdog_;
};

}  // namespace

std::unique_ptr<Communicator> make_nccl(const GroupOptions& options, std::unique_ptr<Store> store) {
  return std::make_unique<NcclCommunicator>(options, std::move(store));
}

bool has_nccl() { return true; }

}  // namespace carousel::comm
