// Host copies of tensors that go on changing: what a thread writes while training goes on.
#pragma once

#include <memory>
#include <vector>

#include "core/kernels/host_copy.h"
#include "core/tensor/tensor.h"

namespace carousel {

class Snapshot {
 public:
  /// Allocates host memory of the size of the sources (any device) and touches all of it, so that
  /// take() does not have to. Page-locked where the sources' backend can do that.
  explicit Snapshot(std::vector<Tensor> sources);
  ~Snapshot();
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  /// Overwrites the copies with what the sources are once all work queued on their devices is done.
  /// On the CPU it returns when that has happened; copies of a GPU's memory may go on.
  void take();
  /// Before the sources change: what their devices are asked to do from now on begins when the last
  /// take() has its copies.
  void hold_up();
  /// Returns when the last take() has its copies; in any thread.
  void wait();
  /// The copy of a source, valid after wait(); on the CPU. Throws InternalError for others.
  const Tensor& of(const Tensor& source) const;

 private:
  struct Pair {
    Tensor source, copy;
    bool pinned = false;
    std::unique_ptr<HostCopy> copying;  ///< of the last take(); null where that has waited
  };
  std::vector<Pair> pairs_;
};

}  // namespace carousel
