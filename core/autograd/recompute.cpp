#include "core/autograd/recompute.h"

#include <algorithm>

#include "core/autograd/node.h"
#include "core/autograd/random.h"

namespace carousel {
namespace {

thread_local RandomKey position;
constexpr std::uint32_t kKeysPerMicroBatch = 4096;

}  // namespace

RandomScope::RandomScope(std::uint64_t seed, std::uint32_t step, std::uint32_t micro_batch)
    : previous_(position) {
  CAROUSEL_CHECK(micro_batch < (1u << 20), "micro-batch {} of one step", micro_batch);
  position = {seed, step, micro_batch * kKeysPerMicroBatch};
}

RandomScope::~RandomScope() { position = previous_; }

RandomKey next_random_key() {
  const RandomKey key = position;
  ++position.tensor;
  CAROUSEL_CHECK(position.tensor % kKeysPerMicroBatch != 0,
                 "more than {} random tensors in one micro-batch", kKeysPerMicroBatch - 1);
  return key;
}

RandomKey random_position() { return position; }
void set_random_position(const RandomKey& p) { position = p; }

std::vector<Variable> recompute(
    const std::function<std::vector<Variable>(const std::vector<Variable>&)>& fn,
    const std::vector<Variable>& inputs) {
  const RandomKey start = random_position();
  std::vector<Tensor> outputs;
  LeafCapture capture;
  {
    NoGrad no_grad;
    for (const Variable& v : fn(inputs)) outputs.push_back(v.defined() ? v.value() : Tensor{});
  }
  std::vector<Tensor> saved;
  for (const Variable& v : inputs) saved.push_back(v.defined() ? v.value() : Tensor{});
  const std::size_t num_inputs = inputs.size();
  const std::size_t num_outputs = outputs.size();
  std::vector<Variable> out =
      record("recompute", std::move(outputs), inputs, std::move(saved),
             [fn, start, num_inputs, num_outputs](BackwardContext& ctx) {
               std::vector<Variable> again(num_inputs);
               for (std::size_t i = 0; i < num_inputs; ++i) {
                 const Tensor& value = ctx.saved(static_cast<int>(i));
                 if (!value.defined()) continue;
                 again[i] = ctx.needs(static_cast<int>(i))
                                ? Variable::leaf(value, ctx.accumulator(static_cast<int>(i)))
                                : Variable(value);
               }
               const RandomKey resume_at = random_position();
               set_random_position(start);
               std::vector<Variable> results;
               {
                 GradMode grad(true);
                 results = fn(again);
               }
               set_random_position(resume_at);
               std::vector<Tensor> gradients(num_outputs);
               for (std::size_t o = 0; o < num_outputs; ++o) {
                 gradients[o] = ctx.grad(static_cast<int>(o));
               }
               backward(results, gradients);
             });
  capture.attach_to(*std::ranges::find_if(out, &Variable::defined));  // they share one node
  return out;
}

}  // namespace carousel
