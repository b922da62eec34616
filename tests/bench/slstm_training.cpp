// What sLSTM blocks cost on the CPU: a training step of xLSTM[1:1] (embedding 128, 4 blocks, batch
// 8 of 256 tokens) over that of the same model with mLSTM blocks alone. Medians of alternating
// steps; the last line is `ratio x.xx`, which must stay below 1.5. Usage: slstm_training [steps]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <vector>

#include "core/base/parallel.h"
#include "core/base/philox.h"
#include "core/kernels/register.h"
#include "layers/register.h"
#include "layers/xlstm.h"
#include "train/step.h"

namespace carousel {
namespace {

constexpr std::int64_t kBatch = 8;
constexpr std::int64_t kSeq = 256;
constexpr std::int64_t kVocab = 256;

Batch random_batch() {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(kBatch * (kSeq + 1)));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>(philox_word({9, 0, 0}, i) % std::uint32_t{kVocab});
  }
  constexpr std::size_t kTokens = kBatch * kSeq;
  Batch batch;
  batch.tokens = Tensor::from<std::int32_t>(std::span(ids).first(kTokens), {kBatch, kSeq});
  batch.targets = Tensor::from<std::int32_t>(std::span(ids).last(kTokens), {kBatch, kSeq});
  batch.target_count = kTokens;
  return batch;
}

struct Run {
  explicit Run(std::vector<std::int64_t> slstm_at) : model(config(std::move(slstm_at))) {
    model.parameters().materialise(kCpu, DType::kF32);
    model.parameters().initialise(1);
    optimizer.emplace(model.parameters(), AdamWConfig{});
  }

  static XlstmConfig config(std::vector<std::int64_t> slstm_at) {
    XlstmConfig c;
    c.num_blocks = 4;
    c.embedding_dim = 128;
    c.vocab_size = kVocab;
    c.slstm_at = std::move(slstm_at);
    return c;
  }

  double milliseconds(const Batch& batch) {
    const auto start = std::chrono::steady_clock::now();
    run_step(model, *optimizer, batch, {.step = ++step, .lr = 1e-4});
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
        .count();
  }

  Xlstm model;
  std::optional<AdamW> optimizer;
  std::int64_t step = 0;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

void compare(int steps) {
  const Batch batch = random_batch();
  Run mixed({1, 3});
  Run mlstm({});
  std::vector<double> mixed_ms;
  std::vector<double> mlstm_ms;
  for (int s = 0; s < steps + 2; ++s) {
    const double a = mixed.milliseconds(batch);
    const double b = mlstm.milliseconds(batch);
    if (s < 2) continue;  // warming up
    mixed_ms.push_back(a);
    mlstm_ms.push_back(b);
  }
  std::printf("%d threads\n", num_threads());
  std::printf("xLSTM[1:1]  %7.1f ms a step  (%.2fM parameters)\n", median(mixed_ms),
              static_cast<double>(mixed.model.parameters().count()) / 1e6);
  std::printf("xLSTM[1:0]  %7.1f ms a step  (%.2fM parameters)\n", median(mlstm_ms),
              static_cast<double>(mlstm.model.parameters().count()) / 1e6);
  std::printf("ratio %.2f\n", median(mixed_ms) / median(mlstm_ms));
}

}  // namespace
}  // namespace carousel

int main(int argc, char** argv) {
  carousel::register_cpu_kernels();
  carousel::register_layer_cpu_kernels();
  carousel::compare(std::max(argc > 1 ? std::atoi(argv[1]) : 15, 1));
  return 0;
}
