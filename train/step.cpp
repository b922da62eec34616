#include "train/step.h"

#include <cmath>
#include <string>

#include "core/autograd/random.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/optimizer.h"
#include "train/loss.h"

namespace carousel {
namespace {

Batch micro_batch(const Batch& batch, std::int64_t begin, std::int64_t end) {
  Batch part;
  part.tokens = batch.tokens.slice(begin, end);
  part.targets = batch.targets.slice(begin, end);
  if (batch.reset.defined()) part.reset = batch.reset.slice(begin, end);
  return part;
}

bool all_finite(const Tensor& t) {
  if (!t.defined() || !is_floating(t.dtype())) return true;
  Tensor wide = t;
  if (t.dtype() == DType::kBF16) {
    wide = Tensor::empty(t.shape(), DType::kF32, t.device());
    cast(t.device(), {t, wide});
  }
  Tensor sum = Tensor::empty({}, DType::kF64, t.device());
  sum_of_squares(t.device(), {wide, sum});
  return std::isfinite(sum.item());
}

// Looks at the weights, then runs the batch forward again and looks at each op's result, then at
// the gradients: the first tensor with an infinite or undefined element is the one to blame.
std::string first_non_finite(LanguageModel& model, const Batch& batch, const StepOptions& options) {
  for (const Parameter& p : model.parameters().all()) {
    if (!all_finite(p.variable.value())) return fmt::format("the weight '{}'", p.spec.name);
  }
  std::string found;
  {
    const NoGrad no_grad;
    const RandomScope random(options.seed, static_cast<std::uint32_t>(options.step));
    int op_index = 0;
    const OpObserver observer([&](const char* op, const std::vector<Tensor>& outputs) {
      ++op_index;
      for (std::size_t o = 0; found.empty() && o < outputs.size(); ++o) {
        if (!all_finite(outputs[o])) {
          found = fmt::format("output {} of op {} of the forward pass, [{}] {}", o, op_index, op,
                              describe(outputs[o]));
        }
      }
    });
    batch_loss(model, batch, {.training = true});
  }
  if (!found.empty()) return found;
  for (const Parameter& p : model.parameters().all()) {
    if (!all_finite(p.variable.grad())) return fmt::format("the gradient of '{}'", p.spec.name);
  }
  return "none could be found again";
}

// The gradients of one rank's part of a batch, micro-batch by micro-batch.
class Accumulation {
 public:
  Accumulation(LanguageModel& model, const Batch& batch, double targets, const StepOptions& options)
      : model_(model),
        batch_(batch),
        targets_(targets),
        options_(options),
        size_(options.micro_batch_size > 0 ? options.micro_batch_size : batch.tokens.dim(0)),
        count_((batch.tokens.dim(0) + size_ - 1) / size_) {}

  /// Leaves the sum in the gradient arena, which must be zero. Returns the micro-batches' losses,
  /// each summed over its targets: nothing here waits for the device.
  std::vector<Tensor> run() {
    if (options_.deterministic) {
      add_tree(count_);
    } else {
      for (std::int64_t i = 0; i < count_; ++i) add_next();
    }
    return std::move(losses_);
  }

 private:
  void add_next() {
    const std::int64_t index = next_++;
    const std::int64_t begin = index * size_;
    const int rank = options_.parallel != nullptr ? options_.parallel->communicator().rank() : 0;
    const RandomScope random(options_.seed, static_cast<std::uint32_t>(options_.step),
                             static_cast<std::uint32_t>(rank * count_ + index));
    const Batch part = micro_batch(batch_, begin, std::min(begin + size_, batch_.tokens.dim(0)));
    const BatchLoss result =
        batch_loss(model_, part, {.training = true, .recompute = options_.recompute});
    Tensor weight = empty_like(result.sum.value());
    fill(weight.device(), {weight, 1.0 / targets_});
    const bool last = options_.deterministic ? count_ == 1 : next_ == count_;
    if (last && options_.parallel != nullptr) options_.parallel->overlap_next_backward();
    backward(result.sum, weight);
    losses_.push_back(result.sum.value());
  }

  // The next n micro-batches, added by halves. With a power of two of ranks, the ranks' sums are
  // subtrees of what one rank would add.
  void add_tree(std::int64_t n) {
    if (n == 1) return add_next();
    add_tree(n - n / 2);
    const Tensor& gradients = model_.parameters().grad();
    Tensor first;
    {
      const RoleScope role(Role::kGradients);
      first = gradients.clone();
    }
    model_.parameters().zero_grad();
    add_tree(n / 2);
    accumulate(gradients.device(), {first, gradients});
  }

  LanguageModel& model_;
  const Batch& batch_;
  double targets_;
  const StepOptions& options_;
  std::int64_t size_;
  std::int64_t count_;
  std::int64_t next_ = 0;
  std::vector<Tensor> losses_;
};

// Of the global batch.
double count_targets(const Batch& batch, const StepOptions& options) {
  if (options.targets) return *options.targets;
  auto count = static_cast<double>(batch.target_count);
  if (options.parallel != nullptr) {
    options.parallel->communicator().sum_on_host({&count, 1}, "targets");
  }
  return count;
}

// The losses of all ranks' micro-batches, and what the ranks have told.
class Results {
 public:
  /// Queues what brings them; does not wait for the device.
  Results(const std::vector<Tensor>& losses, const std::vector<double>& mine,
          comm::Communicator* ranks) {
    const int world_size = ranks != nullptr ? ranks->world_size() : 1;
    const int rank = ranks != nullptr ? ranks->rank() : 0;
    const auto n = static_cast<std::int64_t>(losses.size());
    const RoleScope role(Role::kWorkspace);
    losses_ = Tensor::empty({world_size, n}, losses[0].dtype(), losses[0].device());
    const Tensor own = losses_.slice(rank, rank + 1);
    for (std::int64_t i = 0; i < n; ++i) {
      own.range(i, {}).copy_(losses[static_cast<std::size_t>(i)]);
    }
    if (ranks != nullptr) ranks->all_gather(losses_, "loss").wait();
    if (ranks != nullptr && !mine.empty()) {
      told_ = ranks->gather_values(mine, "news");
    } else {
      mine_ = mine;
    }
  }

  /// The sum over micro-batches and ranks. Waits for the device.
  double loss() const {
    const Tensor wide = Tensor::empty(losses_.shape(), DType::kF64);
    cast(kCpu, {losses_.to(kCpu), wide});
    const std::vector<double> values = wide.to_vector<double>();
    const std::int64_t n = losses_.dim(1);
    double sum = 0.0;
    for (std::int64_t r = 0; r < losses_.dim(0); ++r) {
      double of_rank = 0.0;
      for (std::int64_t i = 0; i < n; ++i) of_rank += values[static_cast<std::size_t>(r * n + i)];
      sum += of_rank;
    }
    return sum;
  }

  /// What each rank has told. Waits for the device.
  std::vector<std::vector<double>> told() const {
    if (!told_.defined()) return {mine_};
    const std::vector<double> values = told_.to_vector<double>();
    std::vector<std::vector<double>> of_rank;
    const auto n = static_cast<std::ptrdiff_t>(told_.dim(1));
    for (auto at = values.begin(); at != values.end(); at += n) of_rank.emplace_back(at, at + n);
    return of_rank;
  }

 private:
  Tensor losses_;  // (ranks, micro-batches)
  Tensor told_;    // (ranks, values)
  std::vector<double> mine_;
};

}  // namespace

StepResult run_step(LanguageModel& model, AdamW& optimizer, const Batch& batch,
                    const StepOptions& options) {
  const double targets = count_targets(batch, options);
  if (targets == 0.0) {
    throw DataError("the batch of step {} has no token to predict; check the data's targets",
                    options.step);
  }
  model.parameters().zero_grad();
  const std::vector<Tensor> losses = Accumulation(model, batch, targets, options).run();
  if (options.parallel != nullptr) options.parallel->reduce_gradients();
  if (options.before_update) options.before_update();
  if (options.parallel != nullptr) {
    options.parallel->update(optimizer, options.step, options.lr);
  } else {
    optimizer.update(options.step, options.lr);
  }
  const Results results(losses, options.meanwhile ? options.meanwhile() : std::vector<double>{},
                        options.parallel != nullptr ? &options.parallel->communicator() : nullptr);
  const StepResult result{.loss = results.loss() / targets,
                          .gradient_norm = optimizer.gradient_norm(),
                          .told = results.told()};
  if (options.parallel != nullptr) options.parallel->communicator().check();
  if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm)) {
    throw NonFiniteError(
        "step {}: loss {}, gradient norm {}; the first tensor that is not finite is {}. The "
        "weights "
        "of the step before are unharmed; lower optim.lr, lengthen schedule.warmup or set "
        "optim.clip",
        options.step, result.loss, result.gradient_norm, first_non_finite(model, batch, options));
  }
  return result;
}

}  // namespace carousel
