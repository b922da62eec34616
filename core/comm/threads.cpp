#include "core/comm/threads.h"

#include <cstring>

#include "core/comm/cpu_communicator.h"

namespace carousel::comm {

// A barrier at which every rank shows the others a pointer.
class ThreadGroup::Meeting {
 public:
  explicit Meeting(int world_size) : shown_(static_cast<std::size_t>(world_size)) {}

  /// The pointers of all ranks, valid until this rank calls again. Throws PeerError at the
  /// deadline, and once the meeting was broken up.
  const std::vector<void*>& meet(int rank, void* mine, Milliseconds timeout) {
    std::unique_lock lock(mutex_);
    shown_[static_cast<std::size_t>(rank)] = mine;
    const std::int64_t round = round_;
    if (++arrived_ == std::ssize(shown_)) {
      arrived_ = 0;
      ++round_;
      seen_ = shown_;
      changed_.notify_all();
    } else {
      const auto over = [&] { return round_ != round || broken_; };
      if (!changed_.wait_until(lock, Clock::now() + timeout, over)) {
        broken_ = true;
        changed_.notify_all();
        throw PeerError("not all ranks came within {} ms", timeout.count());
      }
    }
    if (broken_) throw PeerError("a rank broke off");
    return seen_;
  }

  void break_up() {
    const std::lock_guard lock(mutex_);
    broken_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<void*> shown_, seen_;
  std::int64_t arrived_ = 0;
  std::int64_t round_ = 0;
  bool broken_ = false;
};

class ThreadGroup::Member final : public CpuCommunicator {
 public:
  Member(const GroupOptions& options, std::unique_ptr<Store> store,
         std::shared_ptr<Meeting> meeting)
      : CpuCommunicator(options, std::move(store)), meeting_(std::move(meeting)) {
    start_monitor();
    start_worker();
  }
  ~Member() override {
    stop_monitor();
    stop_worker();
  }

  const char* backend() const override { return "threads"; }

 private:
  const std::vector<void*>& meet(void* mine) {
    return meeting_->meet(rank(), mine, options().timeout);
  }

  void all_reduce_now(void* data, std::int64_t count, DType type) override {
    if (type == DType::kF32) {
      all_reduce_as<float>(data, count);
    } else {
      all_reduce_as<double>(data, count);
    }
  }

  // Each rank sums its share of the elements, and writes it into everyone's memory.
  template <class T>
  void all_reduce_as(void* data, std::int64_t count) {
    const std::vector<void*> all = meet(data);
    for (std::int64_t e = count * rank() / world_size(); e < count * (rank() + 1) / world_size();
         ++e) {
      T sum{};
      for (void* p : all) sum += static_cast<T*>(p)[e];
      for (void* p : all) static_cast<T*>(p)[e] = sum;
    }
    meet(data);
  }

  void all_to_all_now(const void* from, void* to, std::size_t block_bytes) override {
    const std::vector<void*> all = meet(const_cast<void*>(from));
    copy_blocks(all, to, block_bytes,
                [this](std::size_t) { return static_cast<std::size_t>(rank()); });
    meet(to);
  }

  void all_gather_now(void* data, std::size_t block_bytes) override {
    const std::vector<void*> all = meet(data);
    copy_blocks(all, data, block_bytes, [](std::size_t r) { return r; });
    meet(data);
  }

  void broadcast_now(void* data, std::size_t bytes, int root) override {
    const std::vector<void*> all = meet(data);
    if (rank() != root) std::memcpy(data, all[static_cast<std::size_t>(root)], bytes);
    meet(data);
  }

  // Block r of `to` = block which(r) of rank r's memory.
  template <class Which>
  static void copy_blocks(const std::vector<void*>& all, void* to, std::size_t bytes,
                          Which&& which) {
    for (std::size_t r = 0; r < all.size(); ++r) {
      std::byte* target = static_cast<std::byte*>(to) + r * bytes;
      const std::byte* source = static_cast<const std::byte*>(all[r]) + which(r) * bytes;
      if (target != source) std::memcpy(target, source, bytes);
    }
  }

  void interrupt() noexcept override { meeting_->break_up(); }

  std::shared_ptr<Meeting> meeting_;
};

ThreadGroup::ThreadGroup(int world_size)
    : world_size_(world_size), meeting_(std::make_shared<Meeting>(world_size)) {}

ThreadGroup::~ThreadGroup() = default;

std::unique_ptr<Communicator> ThreadGroup::join(int rank, Milliseconds timeout) {
  return std::make_unique<Member>(
      GroupOptions{.rank = rank, .world_size = world_size_, .timeout = timeout}, store_.another(),
      meeting_);
}

}  // namespace carousel::comm
