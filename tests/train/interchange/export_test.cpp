#include "train/interchange/export.h"

#include <gtest/gtest.h>

#include "layers/xlstm_large.h"
#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"
#include "train/interchange/hf_config.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::TempDir;

// Exports a checkpoint of such a model.
void export_one(const XlstmLargeConfig& config, const ExportOptions& options) {
  const TempDir dir;
  const XlstmLarge model(config);
  std::vector<NamedTensor> weights;
  for (const Parameter& p : model.parameters().all()) {
    weights.push_back({p.spec.name, Tensor::zeros(p.spec.shape, DType::kF32)});
  }
  save_checkpoint(dir.path(), 1, {.model = weights, .config_json = hf_config_json(config)});
  export_model(Checkpoint::open(dir / "step-00000001"), dir / "out", options);
}

XlstmLargeConfig small_config() {
  XlstmLargeConfig c;
  c.embedding_dim = 24;
  c.num_heads = 2;
  c.num_blocks = 1;
  c.vocab_size = 11;
  return c;
}

TEST(Export, OfAModelWithoutOutNormIsNotForTransformers) {
  XlstmLargeConfig config = small_config();
  config.add_out_norm = false;
  expect_error<UsageError>([&] { export_one(config, {}); },
                           {"add_out_norm: false", "transformers", "--naming nxai"});
  EXPECT_NO_THROW(export_one(config, {.layout = {.naming = Naming::kNxai}}));
}

TEST(Export, OfGatesWithoutCapIsNotInFloat16) {
  XlstmLargeConfig config = small_config();
  config.gate_soft_cap = 0.0;
  expect_error<UsageError>([&] { export_one(config, {.dtype = DType::kF16}); },
                           {"gate_soft_cap: 0", "--dtype"});
  EXPECT_NO_THROW(export_one(config, {.dtype = DType::kBF16}));
}

}  // namespace
}  // namespace carousel
