// Host copies of tensors that go on changing: what a thread writes while training goes on.
#pragma once

#include <vector>

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

  /// Overwrites the copies with what the sources are once all work queued on their devices is done;
  /// returns when the sources may change again.
  void take();
  /// The copy of a source, as the last take() left it; on the CPU. Throws InternalError for others.
  const Tensor& of(const Tensor& source) const;

 private:
  struct Pair {
    Tensor source, copy;
    bool pinned = false;
  };
  std::vector<Pair> pairs_;
};

}  // namespace carousel
