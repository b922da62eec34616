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
    if (!all_finite(p.master)) return fmt::format("the weight '{}'", p.spec.name);
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

}  // namespace

StepResult run_step(LanguageModel& model, AdamW& optimizer, const Batch& batch,
                    const StepOptions& options) {
  const std::int64_t sequences = batch.tokens.dim(0);
  const std::int64_t size = options.micro_batch_size > 0 ? options.micro_batch_size : sequences;
  if (batch.target_count == 0) {
    throw DataError("the batch of step {} has no token to predict; check the data's targets",
                    options.step);
  }
  model.parameters().zero_grad();
  double loss = 0.0;
  for (std::int64_t begin = 0; begin < sequences; begin += size) {
    const RandomScope random(options.seed, static_cast<std::uint32_t>(options.step),
                             static_cast<std::uint32_t>(begin / size));
    const Batch part = micro_batch(batch, begin, std::min(begin + size, sequences));
    const BatchLoss result =
        batch_loss(model, part, {.training = true, .recompute = options.recompute});
    Tensor weight = empty_like(result.sum.value());
    fill(weight.device(), {weight, 1.0 / static_cast<double>(batch.target_count)});
    backward(result.sum, weight);
    loss += result.sum.value().item();
  }
  loss /= static_cast<double>(batch.target_count);
  optimizer.update(options.step, options.lr);
  const StepResult result{loss, optimizer.gradient_norm()};
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
