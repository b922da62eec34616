#include "train/distributed/data_parallel.h"

#include "core/kernels/elementwise.h"
#include "core/kernels/optimizer.h"

namespace carousel {

std::vector<Bucket> make_buckets(const ParameterSet& parameters, const ParallelOptions& options,
                                 DType compute, int world_size) {
  const auto gradient_bytes = static_cast<std::int64_t>(size_of(accumulation_dtype(compute)));
  return make_buckets(parameters.replicated_begin(), parameters.arena_size(),
                      options.bucket_bytes / gradient_bytes, world_size);
}

DataParallel::DataParallel(ParameterSet& parameters, comm::Communicator& communicator,
                           const ParallelOptions& options, DType compute)
    : parameters_(parameters), communicator_(communicator), options_(options) {
  parameters.lay_out(communicator.world_size());
  buckets_ = make_buckets(parameters, options, compute, communicator.world_size());
  members_.resize(buckets_.size());
  parameters.materialise(communicator.device(), compute, owned());
  communicator.share(parameters.grad(), largest_bucket(buckets_));
  if (sharded()) communicator.share(weights(), 0);
  for (const Parameter& p : parameters.all()) {
    const std::size_t index = buckets_of_.size();
    auto& mine = buckets_of_.emplace_back();
    for (std::size_t b = 0; b < buckets_.size(); ++b) {
      const ArenaRange range = buckets_[b].range;
      if (p.offset < range.end && range.begin < p.offset + p.spec.shape.numel()) {
        mine.push_back(b);
        ++members_[b];
      }
    }
    p.variable.on_gradient_complete([this, index] { completed(index); });
  }
}

DataParallel::~DataParallel() {
  for (const Parameter& p : parameters_.all()) p.variable.on_gradient_complete({});
}

std::vector<ArenaRange> DataParallel::owned() const {
  if (!sharded()) return {{0, parameters_.arena_size()}};
  return owned_ranges(buckets_, communicator_.rank(), communicator_.world_size());
}

const Tensor& DataParallel::weights() const {
  return parameters_.compute().defined() ? parameters_.compute() : parameters_.master();
}

void DataParallel::overlap_next_backward() {
  if (!options_.overlap) return;
  missing_ = members_;
  overlapping_ = true;
}

void DataParallel::completed(std::size_t parameter) {
  if (!overlapping_) return;
  for (const std::size_t b : buckets_of_[parameter]) --missing_[b];
  launch_complete(false);
}

void DataParallel::launch_complete(bool all) {
  const comm::Sum order = options_.deterministic ? comm::Sum::kTree : comm::Sum::kFast;
  for (; next_ < buckets_.size() && (all || missing_[next_] <= 0); ++next_) {
    const Tensor gradients = buckets_[next_].range.of(parameters_.grad());
    works_.push_back(scatters() && !buckets_[next_].replicated
                         ? communicator_.reduce_scatter(gradients, "gradients", order)
                         : communicator_.all_reduce(gradients, "gradients", order));
  }
}

void DataParallel::reduce_gradients() { launch_complete(true); }

void DataParallel::update(AdamW& optimizer, std::int64_t step, double lr) {
  await_sums(optimizer.norm2());
  if (!sharded()) return optimizer.apply(step, lr);
  // The owned part i lies in the i-th bucket from below; the replicated one comes last.
  const std::size_t sharded_buckets = buckets_.size() - (buckets_.back().replicated ? 1 : 0);
  optimizer.apply(step, lr, [&](std::size_t i) {
    if (i >= sharded_buckets) return;
    const Bucket& bucket = buckets_[sharded_buckets - 1 - i];
    works_.push_back(communicator_.all_gather(bucket.range.of(weights()), "weights"));
  });
  for (const comm::Work& work : works_) work.wait();
  works_.clear();
}

// Waits for the sums and leaves ‖gradient‖₂² in norm2: of a bucket while the next is on its way,
// but in the deterministic mode of the whole arena at once, as a process that is alone does.
void DataParallel::await_sums(const Tensor& norm2) {
  const Device device = norm2.device();
  const Tensor& gradients = parameters_.grad();
  const RoleScope role(Role::kWorkspace);
  const Tensor squares =
      Tensor::zeros({static_cast<std::int64_t>(buckets_.size())}, DType::kF64, device);
  for (std::size_t b = 0; b < buckets_.size(); ++b) {
    works_[b].wait();
    if (options_.deterministic) continue;
    const Bucket& bucket = buckets_[b];
    const bool whole = !scatters() || bucket.replicated;
    if (scatters() && whole && communicator_.rank() != 0) continue;  // counted once
    const ArenaRange mine =
        whole ? bucket.range
              : owned_piece(bucket, communicator_.rank(), communicator_.world_size());
    sum_of_squares(device, {mine.of(gradients), squares.range(static_cast<std::int64_t>(b), {})});
  }
  works_.clear();
  next_ = 0;
  overlapping_ = false;
  if (options_.deterministic) return sum_of_squares(device, {gradients, norm2});
  sum_fwd(device, {squares, norm2});
  if (scatters()) communicator_.all_reduce(norm2, "gradient norm").wait();
}

}  // namespace carousel
