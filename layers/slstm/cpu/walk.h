// How the CPU kernels walk: a group of batch rows of one head is one unit of work, which runs
// through all time steps without waiting for any other.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/base/math.h"
#include "core/base/parallel.h"
#include "core/cpu/dispatch.h"
#include "layers/slstm/kernels.h"

namespace carousel::slstm {

/// math.h as the formulas of pointwise.h want it.
struct HostMath {
  template <class C>
  static C exp(C x) {
    return math::exp(x);
  }
  template <class C>
  static C tanh(C x) {
    return math::tanh(x);
  }
  template <class C>
  static C sigmoid(C x) {
    return math::sigmoid(x);
  }
  template <class C>
  static C log_sigmoid(C x) {
    return math::log_sigmoid(x);
  }
};

struct Dims {
  std::int64_t batch, time, heads, size;
};

/// Of h or anything else of its shape (B, S, NH, D).
inline Dims dims_of(const Tensor& h) { return {h.dim(0), h.dim(1), h.dim(2), h.dim(3)}; }

/// Batch rows [begin, begin + rows) of one head.
struct Group {
  std::int64_t head, begin, rows;
};

/// Cuts the batch of every head into equally many groups.
class Groups {
 public:
  /// A step costs a thread about rows + kStepCost for each of its groups, so large groups are
  /// better as long as no thread is idle; kMaxRows keeps what a step touches in cache.
  Groups(const Dims& dims, int threads) : dims_(dims) {
    constexpr std::int64_t kStepCost = 4;
    constexpr std::int64_t kMaxRows = 32;
    std::int64_t least = 0;
    for (std::int64_t n = (dims.batch + kMaxRows - 1) / kMaxRows; n <= dims.batch; ++n) {
      const std::int64_t rows = (dims.batch + n - 1) / n;
      const std::int64_t groups_per_thread = (dims.heads * n + threads - 1) / threads;
      const std::int64_t cost = groups_per_thread * (rows + kStepCost);
      if (least == 0 || cost < least) {
        least = cost;
        per_head_ = n;
      }
    }
  }

  std::int64_t per_head() const { return per_head_; }
  std::int64_t count() const { return dims_.heads * per_head_; }
  /// Groups [h·per_head(), (h + 1)·per_head()) belong to head h.
  Group operator[](std::int64_t index) const {
    const std::int64_t part = index % per_head_;
    const std::int64_t begin = dims_.batch * part / per_head_;
    return {index / per_head_, begin, dims_.batch * (part + 1) / per_head_ - begin};
  }

 private:
  Dims dims_;
  std::int64_t per_head_ = 1;
};

/// Calls body(index, group) for every group, in parallel where the work is worth a thread.
template <class Body>
void for_each_group(const Dims& dims, const Groups& groups, Body&& body) {
  const std::int64_t work = dims.batch * dims.time * dims.heads * dims.size * (dims.size + 16);
  const std::int64_t grain = groups.count() * cpu::kElementwiseGrain / work;
  parallel_for(groups.count(), std::max<std::int64_t>(1, grain),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t index = begin; index < end; ++index) body(index, groups[index]);
               });
}

/// The element offset of (b, t, head, 0) in a (B, S, NH, D) tensor, of (b, head, 0) in a (B, NH, D)
/// one, and of (t, b, head, 0) in a (S, B, NH, D) one.
inline std::int64_t token_offset(const Dims& d, std::int64_t b, std::int64_t t, std::int64_t head) {
  return ((b * d.time + t) * d.heads + head) * d.size;
}
inline std::int64_t state_offset(const Dims& d, std::int64_t b, std::int64_t head) {
  return (b * d.heads + head) * d.size;
}
inline std::int64_t step_offset(const Dims& d, std::int64_t b, std::int64_t t, std::int64_t head) {
  return ((t * d.batch + b) * d.heads + head) * d.size;
}

}  // namespace carousel::slstm
