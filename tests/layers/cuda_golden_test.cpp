// Both model families on the GPU against the official implementations' recorded results.
#include <gtest/gtest.h>

#include "layers/xlstm.h"
#include "layers/xlstm_large.h"
#include "tests/support/devices.h"
#include "tests/support/golden.h"
#include "tests/support/golden_model.h"

namespace carousel {
namespace {

using testing::golden_errors;
using testing::GoldenErrors;
using testing::kGpu;

template <class Model, class MakeConfig>
void expect_model_matches(const char* name, const MakeConfig& make_config) {
  const SafetensorsFile file(testing::golden_path(name));
  const auto config = make_config(nlohmann::json::parse(file.metadata().at("config")));
  const auto errors_on = [&](Device device, DType precision) {
    Model model(config);
    return golden_errors(model, file, device, precision);
  };
  testing::expect_golden(errors_on(kGpu, DType::kF32), 5e-5, 5e-5, 1e-4);
  // In bf16, at most twice what the CPU errs, which rounds at the same places.
  const GoldenErrors cpu = errors_on(kCpu, DType::kBF16);
  const GoldenErrors gpu = errors_on(kGpu, DType::kBF16);
  EXPECT_LE(gpu.logits, 2.0 * cpu.logits);
  EXPECT_LE(gpu.loss, 2.0 * cpu.loss + 0x1.0p-9);  // the CPU's own error may be none by chance
  // Together: a bias of a gate alone is a sum whose terms all but cancel.
  EXPECT_LE(gpu.all_gradients, 2.0 * cpu.all_gradients);
}

TEST(CudaReference, XlstmLargeMatchesTheOfficialModel) {
  CAROUSEL_REQUIRE_CUDA();
  expect_model_matches<XlstmLarge>("xlstm_large_tiny.safetensors",
                                   testing::golden_xlstm_large_config);
}

TEST(CudaReference, XlstmMatchesTheOfficialModel) {
  CAROUSEL_REQUIRE_CUDA();
  expect_model_matches<Xlstm>("xlstm_neurips_tiny.safetensors", testing::golden_xlstm_config);
}

}  // namespace
}  // namespace carousel
