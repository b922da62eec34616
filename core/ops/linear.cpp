// Precision: operands in x's dtype, accumulation in float32, weight gradients in float32.
#include "core/ops/linear.h"

#include <utility>
#include <vector>

#include "core/kernels/matmul.h"
#include "core/ops/check.h"

namespace carousel {
namespace {

using Sizes = std::vector<std::int64_t>;

void check(const Variable& x, const Variable& weight, const Variable& bias, const Sizes& sizes) {
  op_check(x.defined() && is_floating(x.dtype()) && x.shape().rank() >= 1, "linear", "x {}",
           describe(x));
  check_operand("linear", "weight", weight, x);
  op_check(weight.shape().rank() == 2 && weight.dim(1) == x.dim(-1) && weight.dtype() == x.dtype(),
           "linear", "weight {} against x {}", describe(weight), describe(x));
  if (bias.defined()) {
    check_operand("linear", "bias", bias, x);
    op_check(bias.shape() == Shape{weight.dim(0)}, "linear", "bias {} against weight {}",
             describe(bias), describe(weight));
  }
  std::int64_t total = 0;
  for (const std::int64_t size : sizes) {
    op_check(size >= 0, "linear", "a piece of size {} of weight {}", size, describe(weight));
    total += size;
  }
  op_check(total == weight.dim(0), "linear", "pieces ({}) of weight {}", fmt::join(sizes, ", "),
           describe(weight));
}

// Calls f(k, begin, end) for each piece, rows begin … end − 1 of the weight.
template <class F>
void for_each_piece(const Sizes& sizes, F&& f) {
  std::int64_t begin = 0;
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    f(k, begin, begin + sizes[k]);
    begin += sizes[k];
  }
}

void run_backward(BackwardContext& ctx, const Sizes& sizes) {
  const Tensor& x = ctx.saved(0);
  const Tensor& w = ctx.saved(1);
  Tensor dx = ctx.arrived(0);
  bool accumulate = dx.defined();
  const bool sets_dx = !accumulate && ctx.needs(0);
  if (accumulate) dx = dx.reshape(x.shape());
  if (sets_dx) dx = empty_like(x);
  const Tensor dw = ctx.needs(1) ? ctx.accumulator(1) : Tensor{};
  const Tensor db = ctx.needs(2) ? ctx.accumulator(2) : Tensor{};
  for_each_piece(sizes, [&](std::size_t k, std::int64_t begin, std::int64_t end) {
    if (!ctx.grad(static_cast<int>(k)).defined()) return;
    const Tensor dy = ctx.grad(static_cast<int>(k)).reshape({x.dim(0), sizes[k]});
    if (dx.defined()) {
      matmul(dx.device(), {.a = dy, .b = w.slice(begin, end), .out = dx, .accumulate = accumulate});
      accumulate = true;
    }
    if (dw.defined()) {
      matmul(
          dy.device(),
          {.a = dy, .b = x, .out = dw.slice(begin, end), .transpose_a = true, .accumulate = true});
    }
    if (db.defined()) column_sum(dy.device(), {dy, db.slice(begin, end)});
  });
  if (sets_dx) ctx.set(0, dx);
}

}  // namespace

std::vector<Variable> linear(const Variable& x, const Variable& weight, const Variable& bias,
                             const Sizes& sizes) {
  check(x, weight, bias, sizes);
  const std::int64_t rows = with_last(x.shape(), 1).numel();
  const Tensor x2 = x.value().reshape({rows, x.dim(-1)});
  std::vector<Tensor> out;
  for_each_piece(sizes, [&](std::size_t k, std::int64_t begin, std::int64_t end) {
    out.push_back(Tensor::empty(with_last(x.shape(), sizes[k]), x.dtype(), x.device()));
    matmul(x.device(), {.a = x2,
                        .b = weight.value().slice(begin, end),
                        .bias = bias.defined() ? bias.value().slice(begin, end) : Tensor{},
                        .out = out.back().reshape({rows, sizes[k]}),
                        .transpose_b = true});
  });
  return record("linear", std::move(out), {x, weight, bias}, {x2, weight.value()},
                [sizes](BackwardContext& ctx) { run_backward(ctx, sizes); });
}

Variable linear(const Variable& x, const Variable& weight, const Variable& bias) {
  return linear(x, weight, bias,
                {weight.defined() && weight.shape().rank() > 0 ? weight.dim(0) : 0})
      .front();
}

}  // namespace carousel
