#include "train/check.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "core/autograd/random.h"
#include "core/base/philox.h"
#include "core/kernels/elementwise.h"
#include "data/dataset.h"
#include "train/loss.h"
#include "train/model_factory.h"

namespace carousel {
namespace {

std::vector<double> to_doubles(const Tensor& t) {
  const Tensor host = t.to(kCpu);
  if (host.dtype() == DType::kF64) return host.to_vector<double>();
  const auto values = host.to_vector<float>();
  return {values.begin(), values.end()};
}

double relative_error(const Tensor& got_tensor, const Tensor& want_tensor) {
  const auto got = to_doubles(got_tensor);
  const auto want = to_doubles(want_tensor);
  double difference = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    // Equal infinities (a stabiliser before the first token) do not differ.
    if (got[i] == want[i]) continue;
    difference += (got[i] - want[i]) * (got[i] - want[i]);
  }
  for (const double w : want) norm += std::isinf(w) ? 0.0 : w * w;
  return difference == 0.0 ? 0.0 : std::sqrt(difference / norm);
}

struct Result {
  std::string op;
  std::vector<Tensor> outputs;
};

// One model on one device in one precision, and the step that is compared.
class Run {
 public:
  Run(const Config& config, std::int64_t vocab, Device device, DType dtype, const Batch& batch)
      : config_(config), batch_(batch), model_(make_model(config.model, vocab)) {
    model_->parameters().materialise(device, dtype);
    model_->parameters().initialise(static_cast<std::uint64_t>(config.seed));
  }

  LanguageModel& model() { return *model_; }

  // The mean loss, recorded for the backward; `observe` sees every op's results.
  Variable forward(OpObserver::Callback observe) const {
    const OpObserver observer(std::move(observe));
    const RandomScope random(static_cast<std::uint64_t>(config_.seed), 1);
    return batch_loss(*model_, batch_, {.training = true}).sum;
  }
  void backward(const Variable& sum) const {
    model_->parameters().zero_grad();
    Tensor weight = empty_like(sum.value());
    fill(weight.device(), {weight, 1.0 / static_cast<double>(batch_.target_count)});
    carousel::backward(sum, weight);
  }
  double mean_loss() const {
    const NoGrad no_grad;
    const RandomScope random(static_cast<std::uint64_t>(config_.seed), 1);
    return batch_loss(*model_, batch_, {.training = true}).sum.value().item() /
           static_cast<double>(batch_.target_count);
  }

 private:
  const Config& config_;
  const Batch& batch_;
  std::unique_ptr<LanguageModel> model_;
};

// Compares the subject's op results with the reference's as they come, and lets go of the latter.
class Comparison {
 public:
  Comparison(std::vector<Result> want, double bound) : want_(std::move(want)), bound_(bound) {}

  void see(const char* op, const std::vector<Tensor>& outputs) {
    if (next_ >= want_.size() || want_[next_].op != op ||
        want_[next_].outputs.size() != outputs.size()) {
      throw InternalError("op {} is [{}], but [{}] in the reference", next_ + 1, op,
                          next_ < want_.size() ? want_[next_].op : "none");
    }
    Result& want = want_[next_++];
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      const Tensor& got = outputs[o];
      if (!got.defined() || !want.outputs[o].defined() || !is_floating(got.dtype())) continue;
      lines.push_back({fmt::format("op {} [{}] output {}, {}", next_, op, o, describe(got)),
                       relative_error(got, want.outputs[o]), bound_});
    }
    want.outputs.clear();
  }

  std::vector<CheckLine> lines;

 private:
  std::vector<Result> want_;
  std::size_t next_ = 0;
  double bound_;
};

// The derivative of the loss along a random direction d of ±1 through one parameter, by central
// differences in float64, against ⟨gradient, d⟩. Relative to the gradient's norm, which is what
// such a product amounts to.
double difference_error(Run& exact, const Parameter& parameter, const Tensor& gradient,
                        RandomKey key) {
  const auto g = to_doubles(gradient);
  const auto weights = to_doubles(parameter.master);
  double along = 0.0;
  double norm = 0.0;
  std::vector<double> direction(g.size());
  for (std::size_t e = 0; e < g.size(); ++e) {
    direction[e] = philox_uniform(key, e) < 0.5F ? -1.0 : 1.0;
    along += direction[e] * g[e];
    norm += g[e] * g[e];
  }
  // All elements move at once, so the step shrinks with their number.
  const double step = 1e-4 / std::sqrt(static_cast<double>(g.size()));
  const auto loss_at = [&](double distance) {
    std::vector<double> moved = weights;
    for (std::size_t e = 0; e < moved.size(); ++e) moved[e] += distance * direction[e];
    Tensor(parameter.master)
        .copy_(Tensor::from<double>(std::span<const double>(moved), parameter.spec.shape));
    return exact.mean_loss();
  };
  const double slope = (loss_at(step) - loss_at(-step)) / (2.0 * step);
  loss_at(0.0);
  return slope == along ? 0.0 : std::abs(slope - along) / std::sqrt(norm);
}

}  // namespace

bool CheckResult::ok() const {
  const auto good = [](const std::vector<CheckLine>& lines) {
    return std::ranges::all_of(lines, &CheckLine::ok);
  };
  return good(activations) && good(gradients) && good(differences);
}

CheckResult check_model(const Config& config, Device device, const CheckOptions& options) {
  const Dataset data =
      open_dataset(config.data, {.seed = static_cast<std::uint64_t>(config.seed),
                                 .eval_batches = 1,
                                 .vocab_size = config.model.vocab_size.value_or(0)});
  const std::int64_t vocab = data.train->vocab_size();
  const Batch batch =
      data.train->batch(0, 0, config.micro_batch_size.value_or(config.data.batch_size));
  if (batch.target_count == 0) throw DataError("the first batch has no token to predict");

  const bool on_cpu = device.type == DeviceType::kCpu;
  Run reference(config, vocab, kCpu, on_cpu ? DType::kF64 : DType::kF32, batch);
  Run subject(config, vocab, device, DType::kF32, batch);
  CheckResult result;
  result.reference = on_cpu ? "cpu f32 against cpu f64" : "cuda f32 against cpu f32";

  std::vector<Result> wanted;
  const Variable want = reference.forward([&](const char* op, const std::vector<Tensor>& outputs) {
    wanted.push_back({op, outputs});
  });
  Comparison comparison(std::move(wanted), options.activations);
  const Variable got = subject.forward(
      [&](const char* op, const std::vector<Tensor>& outputs) { comparison.see(op, outputs); });
  result.activations = std::move(comparison.lines);

  reference.backward(want);
  subject.backward(got);
  const auto& parameters = subject.model().parameters().all();
  for (const Parameter& p : parameters) {
    const Tensor& g = reference.model().parameters().at(p.spec.name).variable.grad();
    result.gradients.push_back({fmt::format("gradient of {}, {}", p.spec.name, p.spec.shape),
                                relative_error(p.variable.grad(), g), options.gradients});
  }

  std::unique_ptr<Run> own;
  if (!on_cpu) own = std::make_unique<Run>(config, vocab, kCpu, DType::kF64, batch);
  Run& exact = own ? *own : reference;
  const auto count = static_cast<std::int64_t>(parameters.size());
  for (std::int64_t s = 0; s < std::min(options.samples, count); ++s) {
    const Parameter& p = parameters[static_cast<std::size_t>(s * count / options.samples)];
    const RandomKey key{static_cast<std::uint64_t>(config.seed), 2, static_cast<std::uint32_t>(s)};
    result.differences.push_back(
        {fmt::format("differences along {}", p.spec.name),
         difference_error(exact, exact.model().parameters().at(p.spec.name), p.variable.grad(),
                          key),
         options.differences});
  }
  return result;
}

std::string to_string(const CheckResult& result, std::size_t worst) {
  std::string text = result.reference + "\n";
  const auto add = [&](const char* kind, std::vector<CheckLine> lines) {
    if (lines.empty()) return;
    std::ranges::stable_sort(lines, [](const CheckLine& a, const CheckLine& b) {
      return a.ok() != b.ok() ? !a.ok() : a.error > b.error;
    });
    const auto failed =
        lines.size() - static_cast<std::size_t>(std::ranges::count_if(lines, &CheckLine::ok));
    text += fmt::format("{}: {} compared, {} beyond {:g}; the worst:\n", kind, lines.size(), failed,
                        lines.front().bound);
    for (std::size_t i = 0; i < std::min(lines.size(), std::max(worst, failed)); ++i) {
      text += fmt::format("  {} {:.2e}  {}\n", lines[i].ok() ? "ok  " : "FAIL", lines[i].error,
                          lines[i].what);
    }
  };
  add("activations", result.activations);
  add("gradients", result.gradients);
  add("finite differences", result.differences);
  return text + (result.ok() ? "all agree\n" : "they DISAGREE\n");
}

}  // namespace carousel
