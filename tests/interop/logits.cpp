// Logits of a run as numbers that other libraries' can be compared with:
//   interop_logits RUN IDS OUT    IDS holds "ids" (B, S) i32 or i64; OUT gets "logits" (B, S, V)
//   f32
#include <cmath>
#include <cstdio>
#include <vector>

#include "core/kernels/register.h"
#include "core/ops/elementwise.h"
#include "layers/register.h"
#include "train/run_directory.h"

namespace carousel {
namespace {

Tensor as_i32(const Tensor& ids) {
  if (ids.dtype() == DType::kI32) return ids;
  std::vector<std::int32_t> narrow;
  for (const std::int64_t id : ids.to_vector<std::int64_t>()) {
    narrow.push_back(static_cast<std::int32_t>(id));
  }
  return Tensor::from<std::int32_t>(narrow, ids.shape());
}

void write_logits(const char* run, const char* ids, const char* out) {
  const TrainedModel trained = load_trained_model(run, DeviceChoice::kUseCpu);
  const NoGrad no_grad;
  const Tensor tokens = as_i32(SafetensorsFile(ids).load("ids"));
  const Variable raw = trained.model->logits(trained.model->hidden(tokens, {}, {}));
  std::vector<float> logits = to_dtype(raw, DType::kF32).value().to_vector<float>();
  if (const double cap = trained.model->logit_cap(); cap > 0) {
    for (float& x : logits) x = static_cast<float>(cap * std::tanh(x / cap));
  }
  write_safetensors(out, {{"logits", Tensor::from<float>(logits, raw.value().shape())}});
}

}  // namespace
}  // namespace carousel

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: interop_logits RUN IDS OUT\n", stderr);
    return 2;
  }
  try {
    carousel::register_cpu_kernels();
    carousel::register_layer_cpu_kernels();
    carousel::write_logits(argv[1], argv[2], argv[3]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
