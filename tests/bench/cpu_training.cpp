// CPU training speed of a 10M-parameter model against the same process's matrix products: useful
// model FLOP/s (3 × the forward FLOPs of the scaling-law count) over the FLOP/s of a 1024³ OpenBLAS
// sgemm on the same threads. Medians; the last line is `ratio 0.xx`.
// Usage: cpu_training [steps]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "core/base/parallel.h"
#include "core/kernels/matmul.h"
#include "core/kernels/register.h"
#include "layers/register.h"
#include "layers/xlstm_large.h"
#include "train/step.h"

namespace carousel {
namespace {

double seconds_of(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

Tensor random_matrix(std::int64_t n, std::uint64_t seed) {
  std::vector<float> values(static_cast<std::size_t>(n * n));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = philox_uniform({seed, 0, 0}, i) - 0.5f;
  return Tensor::from<float>(values, {n, n});
}

double sgemm_seconds() {
  const Tensor a = random_matrix(1024, 1);
  const Tensor b = random_matrix(1024, 2);
  const Tensor c = Tensor::zeros({1024, 1024}, DType::kF32);
  return seconds_of([&] { matmul(kCpu, {.a = a, .b = b, .out = c}); });
}

Batch random_batch(std::int64_t sequences, std::int64_t seq_len, std::int64_t vocab) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(sequences * (seq_len + 1)));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] =
        static_cast<std::int32_t>(philox_word({9, 0, 0}, i) % static_cast<std::uint32_t>(vocab));
  }
  Batch batch;
  const auto count = static_cast<std::size_t>(sequences * seq_len);
  batch.tokens = Tensor::from<std::int32_t>(std::span(ids).first(count), {sequences, seq_len});
  batch.targets = Tensor::from<std::int32_t>(std::span(ids).last(count), {sequences, seq_len});
  batch.target_count = sequences * seq_len;
  return batch;
}

int run(int steps) {
  XlstmLargeConfig config;
  config.embedding_dim = 384;
  config.num_heads = 4;
  config.num_blocks = 6;
  config.vocab_size = 256;
  constexpr std::int64_t kBatch = 8;
  constexpr std::int64_t kSeq = 256;
  XlstmLarge model(config);
  model.parameters().materialise(kCpu, DType::kF32);
  model.parameters().initialise(1);
  AdamW optimizer(model.parameters(), {});
  const Batch batch = random_batch(kBatch, kSeq, config.vocab_size);
  const double step_flops = 3.0 * model.forward_flops_per_token(kSeq) * kBatch * kSeq;
  std::printf("model %.2fM parameters, batch %ld x %ld tokens, %.1f GFLOP a step, %d threads\n",
              static_cast<double>(model.parameters().count()) / 1e6, kBatch, kSeq, step_flops / 1e9,
              num_threads());

  // Alternating, so that both see the same machine.
  std::vector<double> step_seconds;
  std::vector<double> gemm_seconds;
  run_step(model, optimizer, batch, {.step = 1, .lr = 1e-4});
  for (int s = 0; s < steps; ++s) {
    for (int g = 0; g < 8; ++g) gemm_seconds.push_back(sgemm_seconds());
    step_seconds.push_back(
        seconds_of([&] { run_step(model, optimizer, batch, {.step = s + 2, .lr = 1e-4}); }));
  }
  const double gemm_rate = 2.0 * 1024 * 1024 * 1024 / median(gemm_seconds);
  const double model_rate = step_flops / median(step_seconds);
  std::printf("sgemm 1024^3      %7.1f GFLOP/s\n", gemm_rate / 1e9);
  std::printf("training step     %7.1f GFLOP/s  (%.1f ms, %.0f tokens/s)\n", model_rate / 1e9,
              median(step_seconds) * 1e3, kBatch * kSeq / median(step_seconds));
  std::printf("ratio %.2f\n", model_rate / gemm_rate);
  return 0;
}

}  // namespace
}  // namespace carousel

int main(int argc, char** argv) {
  carousel::register_cpu_kernels();
  carousel::register_layer_cpu_kernels();
  return carousel::run(argc > 1 ? std::atoi(argv[1]) : 10);
}
