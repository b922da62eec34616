#include "core/comm/cpu_communicator.h"

#include <cstring>
#include <utility>

namespace carousel::comm {
namespace {

// pieces[0] = Σ of `count` vectors of n elements that lie behind one another, pairwise by halves.
template <class T>
void tree_sum(T* pieces, int count, std::int64_t n) {
  for (int stride = 1; stride < count; stride *= 2) {
    for (int i = 0; i + stride < count; i += 2 * stride) {
      T* to = pieces + i * n;
      const T* from = pieces + (i + stride) * n;
#pragma omp simd
      for (std::int64_t e = 0; e < n; ++e) to[e] += from[e];
    }
  }
}

}  // namespace

struct CpuCommunicator::Task final : Work::State {
  Task(CpuCommunicator& owner, std::function<void()> function, Monitor::Ticket at)
      : communicator(owner), run(std::move(function)), ticket(std::move(at)) {}

  void wait() override {
    std::unique_lock lock(communicator.mutex_);
    communicator.changed_.wait(lock, [&] { return done; });
    if (error) std::rethrow_exception(error);
  }

  CpuCommunicator& communicator;
  std::function<void()> run;
  Monitor::Ticket ticket;
  bool done = false;
  std::exception_ptr error;
};

CpuCommunicator::CpuCommunicator(const GroupOptions& options, std::unique_ptr<Store> store)
    : Communicator(options, std::move(store)) {
  CAROUSEL_CHECK(options.device == kCpu, "a CPU communicator for {}", to_string(options.device));
}

void CpuCommunicator::start_worker() {
  thread_ = std::thread([this] { work(); });
}

void CpuCommunicator::stop_worker() noexcept {
  bool busy = false;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    busy = !queue_.empty();
  }
  changed_.notify_all();
  if (busy) interrupt();
  if (thread_.joinable()) thread_.join();
}

Work CpuCommunicator::enqueue(std::function<void()> run, Monitor::Ticket ticket) {
  const auto task = std::make_shared<Task>(*this, std::move(run), std::move(ticket));
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(task);
  }
  changed_.notify_all();
  return Work(task);
}

void CpuCommunicator::work() {
  for (;;) {
    std::shared_ptr<Task> task;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (stopping_) failed_ = std::make_exception_ptr(PeerError("this rank left its group"));
      if (queue_.empty()) return;
      task = queue_.front();
    }
    std::exception_ptr error = failed_;
    if (!error) {
      try {
        task->run();
      } catch (const std::exception& e) {
        error = std::make_exception_ptr(PeerError("{}", monitor().explain(task->ticket, e.what())));
      }
    }
    task->run = nullptr;  // lets go of its tensors
    {
      const std::lock_guard lock(mutex_);
      failed_ = task->error = error;
      task->done = true;
      queue_.pop_front();
    }
    changed_.notify_all();
  }
}

Work CpuCommunicator::start_all_reduce(const Tensor& t, Sum order, Monitor::Ticket ticket) {
  if (order == Sum::kFast) {
    return enqueue([this, t] { all_reduce_now(t.raw(), t.numel(), t.dtype()); }, std::move(ticket));
  }
  return enqueue(
      [this, t] {
        reduce_scatter_now(t);
        gather_pieces(t);
      },
      std::move(ticket));
}

// Both orders: the sum is computed here in any case, and the tree costs no more than another order.
Work CpuCommunicator::start_reduce_scatter(const Tensor& t, Sum, Monitor::Ticket ticket) {
  return enqueue([this, t] { reduce_scatter_now(t); }, std::move(ticket));
}

Work CpuCommunicator::start_all_gather(const Tensor& t, Monitor::Ticket ticket) {
  return enqueue([this, t] { gather_pieces(t); }, std::move(ticket));
}

Work CpuCommunicator::start_broadcast(const Tensor& t, int root, Monitor::Ticket ticket) {
  return enqueue([this, t, root] { broadcast_now(t.raw(), t.bytes(), root); }, std::move(ticket));
}

void CpuCommunicator::reduce_scatter_now(const Tensor& t) {
  const std::size_t piece = t.bytes() / static_cast<std::size_t>(world_size());
  received_.resize(t.bytes());
  all_to_all_now(t.raw(), received_.data(), piece);
  const std::int64_t n = t.numel() / world_size();
  if (t.dtype() == DType::kF32) {
    tree_sum(reinterpret_cast<float*>(received_.data()), world_size(), n);
  } else {
    tree_sum(reinterpret_cast<double*>(received_.data()), world_size(), n);
  }
  std::memcpy(static_cast<std::byte*>(t.raw()) + static_cast<std::size_t>(rank()) * piece,
              received_.data(), piece);
}

void CpuCommunicator::gather_pieces(const Tensor& t) {
  all_gather_now(t.raw(), t.bytes() / static_cast<std::size_t>(world_size()));
}

}  // namespace carousel::comm
