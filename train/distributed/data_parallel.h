// Data parallelism: every rank has the whole model and a part of each batch; gradients are summed
// over ranks in buckets, behind the backward or while it goes on.
#pragma once

#include <cstdint>
#include <vector>

#include "core/comm/communicator.h"
#include "optim/adamw.h"
#include "train/distributed/buckets.h"

namespace carousel {

struct ParallelOptions {
  /// 1: each rank keeps the optimizer state of its part of the weights alone, and in bf16 runs the
  /// float32 masters of that part (ZeRO, Rajbhandari et al. 2020, arXiv:1910.02054).
  int zero_stage = 0;
  /// Sums over ranks form a fixed tree: see comm::Sum::kTree.
  bool deterministic = false;
  /// Sums begin while the backward goes on; else behind it.
  bool overlap = true;
  std::int64_t bucket_bytes = std::int64_t{100} << 20;
};

/// How the arenas of laid-out parameters are cut for `world_size` ranks, with gradients of
/// `compute`'s accumulation dtype.
std::vector<Bucket> make_buckets(const ParameterSet& parameters, const ParallelOptions& options,
                                 DType compute, int world_size);

class DataParallel {
 public:
  /// Materialises the parameters on the communicator's device, laid out for its ranks. Both
  /// arguments must outlive this.
  DataParallel(ParameterSet& parameters, comm::Communicator& communicator,
               const ParallelOptions& options, DType compute);
  ~DataParallel();
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;

  comm::Communicator& communicator() { return communicator_; }
  bool sharded() const { return options_.zero_stage == 1; }
  /// What this rank's optimizer must own.
  std::vector<ArenaRange> owned() const;

  /// The next backward is the last before reduce_gradients(): buckets may leave as they complete,
  /// which options.overlap asks for.
  void overlap_next_backward();
  /// Begins to sum the gradients over ranks (sharded: each rank's own parts of them).
  void reduce_gradients();
  /// Clips by the sums, updates, and brings every rank's weights up to date. Asynchronous where the
  /// device is.
  void update(AdamW& optimizer, std::int64_t step, double lr);

 private:
  bool scatters() const { return sharded() && !options_.deterministic; }
  const Tensor& weights() const;  // those that ops take, all of them
  void completed(std::size_t parameter);
  void launch_complete(bool all);
  void await_sums(const Tensor& norm2);

  ParameterSet& parameters_;
  comm::Communicator& communicator_;
  ParallelOptions options_;
  std::vector<Bucket> buckets_;
  std::vector<std::vector<std::size_t>> buckets_of_;  // by parameter
  std::vector<int> members_;                          // parameters in each bucket
  std::vector<int> missing_;  // of those, gradients that the present backward has yet to complete
  std::size_t next_ = 0;      // bucket to leave next: all ranks keep to one order
  bool overlapping_ = false;
  std::vector<comm::Work> works_;
};

}  // namespace carousel
