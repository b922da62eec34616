// What the CPU backends share: a thread that runs collectives in order beside the caller.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "core/comm/communicator.h"

namespace carousel::comm {

class CpuCommunicator : public Communicator {
 protected:
  CpuCommunicator(const GroupOptions& options, std::unique_ptr<Store> store);

  // The backends' collectives: they block, run in the worker, and throw any std::exception.
  // Sizes are in bytes, `type` is f32 or f64.
  virtual void all_reduce_now(void* data, std::int64_t count, DType type) = 0;
  /// Block i of `from` goes to rank i, whose block arrives as block i of `to`.
  virtual void all_to_all_now(const void* from, void* to, std::size_t block_bytes) = 0;
  /// In place: block `rank()` of `data` is this rank's.
  virtual void all_gather_now(void* data, std::size_t block_bytes) = 0;
  virtual void broadcast_now(void* data, std::size_t bytes, int root) = 0;

  /// For the backends' constructors and destructors. stop_worker() ends what is in flight.
  void start_worker();
  void stop_worker() noexcept;

 private:
  struct Task;
  Work start_all_reduce(const Tensor& t, Sum order, Monitor::Ticket ticket) override;
  Work start_reduce_scatter(const Tensor& t, Sum order, Monitor::Ticket ticket) override;
  Work start_all_gather(const Tensor& t, Monitor::Ticket ticket) override;
  Work start_broadcast(const Tensor& t, int root, Monitor::Ticket ticket) override;

  Work enqueue(std::function<void()> run, Monitor::Ticket ticket);
  void work();
  void reduce_scatter_now(const Tensor& t);
  void gather_pieces(const Tensor& t);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Task>> queue_;
  bool stopping_ = false;
  std::exception_ptr failed_;  // what the first collective that failed threw
  std::vector<std::byte> received_;
  std::thread thread_;
};

}  // namespace carousel::comm
