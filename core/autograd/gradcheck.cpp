#include "core/autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "core/base/philox.h"

namespace carousel {
namespace {

using Function = std::function<std::vector<Variable>(const std::vector<Variable>&)>;

// Random weights for output o, drawn once per shape so that the loss is the same at every call.
Tensor weights_for(const Tensor& output, std::size_t o, std::uint64_t seed) {
  std::vector<double> w(static_cast<std::size_t>(output.numel()));
  const RandomKey key{seed, 0, static_cast<std::uint32_t>(o)};
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = philox_normal(key, i);
  return Tensor::from<double>(w, output.shape(), output.device());
}

double loss_of(const Function& fn, const std::vector<Variable>& inputs, std::uint64_t seed) {
  NoGrad no_grad;
  double loss = 0.0;
  const std::vector<Variable> outputs = fn(inputs);
  for (std::size_t o = 0; o < outputs.size(); ++o) {
    if (!outputs[o].defined() || outputs[o].dtype() != DType::kF64) continue;
    const auto values = outputs[o].value().to_vector<double>();
    const auto w = weights_for(outputs[o].value(), o, seed).to_vector<double>();
    for (std::size_t i = 0; i < values.size(); ++i) loss += w[i] * values[i];
  }
  return loss;
}

}  // namespace

GradcheckResult gradcheck(const Function& fn, const std::vector<Tensor>& inputs,
                          const GradcheckOptions& options) {
  std::vector<Variable> variables;
  for (const Tensor& t : inputs) {
    if (!t.defined()) {
      variables.emplace_back();
    } else if (t.dtype() == DType::kF64) {
      variables.push_back(Variable::leaf(t, zeros_like(t)));
    } else {
      variables.emplace_back(t);
    }
  }
  const std::vector<Variable> outputs = fn(variables);
  std::vector<Tensor> gradients(outputs.size());
  for (std::size_t o = 0; o < outputs.size(); ++o) {
    if (outputs[o].defined() && outputs[o].dtype() == DType::kF64 && outputs[o].requires_grad()) {
      gradients[o] = weights_for(outputs[o].value(), o, options.seed);
    }
  }
  backward(outputs, gradients);

  GradcheckResult result;
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    if (!inputs[k].defined() || inputs[k].dtype() != DType::kF64) continue;
    const auto tape = variables[k].grad().to_vector<double>();
    const auto values = inputs[k].to_vector<double>();
    double error2 = 0.0;
    double norm2 = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double h = options.step * std::max(1.0, std::abs(values[i]));
      const auto loss_at = [&](double x) {
        auto moved = values;
        moved[i] = x;
        std::vector<Variable> point = variables;
        point[k] = Variable(Tensor::from<double>(moved, inputs[k].shape(), inputs[k].device()));
        return loss_of(fn, point, options.seed);
      };
      const double difference = (loss_at(values[i] + h) - loss_at(values[i] - h)) / (2 * h);
      error2 += (tape[i] - difference) * (tape[i] - difference);
      norm2 += difference * difference;
    }
    const double error = std::sqrt(error2) / std::max(std::sqrt(norm2), options.floor);
    const bool good = error <= options.tolerance;  // false for NaN
    result.ok = result.ok && good;
    result.report += fmt::format("input {} {}: relative error {:.3g}{}\n", k, inputs[k].shape(),
                                 error, good ? "" : "  <-- too large");
  }
  return result;
}

}  // namespace carousel
