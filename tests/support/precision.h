// Ops in their storage dtypes: float32 and bf16 runs against the float64 run on the same inputs.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "core/ops/elementwise.h"
#include "tests/support/random.h"

namespace carousel::testing {

using OpUnderTest = std::function<std::vector<Variable>(const std::vector<Variable>&)>;

inline Tensor converted(const Tensor& t, DType dtype) {
  return to_dtype(Variable(t), dtype).value();
}

/// The outputs of `op` at `inputs` (floating ones as leaves of `dtype`), then the gradients of the
/// inputs under fixed random gradients of the outputs; all as doubles.
inline std::vector<std::vector<double>> values_and_gradients(const OpUnderTest& op,
                                                             const std::vector<Tensor>& inputs,
                                                             DType dtype) {
  std::vector<Variable> leaves;
  for (const Tensor& t : inputs) {
    const Tensor value = converted(t, dtype);
    leaves.push_back(
        Variable::leaf(value, Tensor::zeros(t.shape(), accumulation_dtype(dtype), t.device())));
  }
  const std::vector<Variable> outputs = op(leaves);
  std::vector<Tensor> gradients;
  std::vector<std::vector<double>> result;
  for (std::size_t o = 0; o < outputs.size(); ++o) {
    const Tensor normal = random_normal<float>(outputs[o].shape(), 1000 + o);
    gradients.push_back(converted(converted(normal, DType::kBF16), outputs[o].dtype()));
    result.push_back(to_doubles(outputs[o].value()));
  }
  backward(outputs, gradients);
  for (const Variable& leaf : leaves) result.push_back(to_doubles(leaf.grad()));
  return result;
}

/// Expects outputs and gradients within a relative (2-norm) error of the float64 run. Inputs are
/// rounded to bf16 first, so that the errors are those of the op alone.
inline void expect_precision(const OpUnderTest& op, std::vector<Tensor> inputs, double f32_error,
                             double bf16_error) {
  for (Tensor& t : inputs) t = converted(t, DType::kBF16);
  const auto truth = values_and_gradients(op, inputs, DType::kF64);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const auto got = values_and_gradients(op, inputs, dtype);
    for (std::size_t i = 0; i < truth.size(); ++i) {
      EXPECT_LE(relative_error(got[i], truth[i]), dtype == DType::kF32 ? f32_error : bf16_error)
          << name_of(dtype) << ", " << i << " of the outputs and then the gradients";
    }
  }
}

}  // namespace carousel::testing
