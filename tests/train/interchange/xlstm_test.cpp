// Import and export of family B, and of the NX-AI package's form of family A.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "layers/xlstm.h"
#include "layers/xlstm_large.h"
#include "tests/support/errors.h"
#include "tests/support/golden.h"
#include "tests/support/golden_model.h"
#include "tests/support/random.h"
#include "tests/support/temp_dir.h"
#include "train/interchange/export.h"
#include "train/interchange/import.h"
#include "train/run_directory.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::expect_error;
using testing::TempDir;

constexpr const char* kCell = "xlstm_block_stack.blocks.1.xlstm.slstm_cell.";

XlstmConfig small_config(bool tied = false) {
  XlstmConfig c;
  c.num_blocks = 3;
  c.embedding_dim = 24;
  c.context_length = 17;
  c.vocab_size = 11;
  c.slstm_at = {1};
  c.bias = true;
  c.tie_weights = tied;
  c.dropout = 0.125;
  c.mlstm.num_heads = 2;
  c.mlstm.conv1d_kernel_size = 3;
  c.slstm.num_heads = 3;
  return c;
}

std::vector<NamedTensor> random_weights(const LanguageModel& model) {
  std::vector<NamedTensor> weights;
  for (const Parameter& p : model.parameters().all()) {
    weights.push_back(
        {p.spec.name, testing::random_normal<float>(p.spec.shape, 1 + weights.size())});
  }
  return weights;
}

void write_model(const fs::path& directory, const std::vector<NamedTensor>& tensors,
                 const std::string& config) {
  fs::create_directories(directory);
  write_safetensors(directory / "model.safetensors", tensors, {{"format", "pt"}});
  std::ofstream(directory / "config.json") << config;
}

// The tensors of a golden file under the package's names.
std::vector<NamedTensor> golden_parameters(const SafetensorsFile& file) {
  const std::string prefix = "param.";
  std::vector<NamedTensor> tensors;
  for (const std::string& name : file.names()) {
    if (name.starts_with(prefix)) tensors.push_back({name.substr(prefix.size()), file.load(name)});
  }
  return tensors;
}

// From the vanilla layout to the CUDA backend's, element by element.
NamedTensor arranged_for_cuda(const NamedTensor& t, std::int64_t heads) {
  const auto from = t.tensor.to_vector<float>();
  std::vector<float> to(from.size());
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  if (t.name.ends_with("_recurrent_kernel_")) {
    const std::int64_t size = t.tensor.dim(2);
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t out = 0; out < 4 * size; ++out) {
        for (std::int64_t in = 0; in < size; ++in) {
          to[at((h * size + in) * 4 * size + out)] = from[at((h * 4 * size + out) * size + in)];
        }
      }
    }
    return {t.name, Tensor::from<float>(to, {heads, size, 4 * size})};
  }
  const std::int64_t size = t.tensor.numel() / (4 * heads);
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t gate = 0; gate < 4; ++gate) {
      for (std::int64_t e = 0; e < size; ++e) {
        to[at((h * 4 + gate) * size + e)] = from[at((gate * heads + h) * size + e)];
      }
    }
  }
  return {t.name, Tensor::from<float>(to, t.tensor.shape())};
}

std::vector<double> logits_of(const fs::path& run, const Tensor& tokens) {
  const TrainedModel trained = load_trained_model(run, DeviceChoice::kUseCpu);
  const NoGrad no_grad;
  const Variable raw = trained.model->logits(trained.model->hidden(tokens, {}, {}));
  std::vector<double> logits = testing::to_doubles(raw.value());
  const double cap = trained.model->logit_cap();
  if (cap > 0) {
    for (double& x : logits) x = cap * std::tanh(x / cap);
  }
  return logits;
}

TEST(InterchangeXlstmGolden, StateDictsOfBothBackendsGiveTheLogitsOfThePackage) {
  const SafetensorsFile file(testing::golden_path("xlstm_neurips_tiny.safetensors"));
  const auto config = testing::golden_xlstm_config(json::parse(file.metadata().at("config")));
  const auto want = testing::to_doubles(file.load("logits"));
  const Tensor tokens = testing::split_tokens(file.load("ids")).first;
  for (const SlstmLayout layout : {SlstmLayout::kVanilla, SlstmLayout::kCuda}) {
    const TempDir dir;
    auto tensors = golden_parameters(file);
    for (NamedTensor& t : tensors) {
      if (layout == SlstmLayout::kCuda && t.name.find("slstm_cell") != std::string::npos) {
        t = arranged_for_cuda(t, config.slstm.num_heads);
      }
    }
    write_model(dir / "model", tensors, xlstm_json(config, layout));
    import_model(dir / "model", dir / "run", {});
    EXPECT_LE(testing::relative_error(logits_of(dir / "run", tokens), want), 1e-5);
  }
}

TEST(InterchangeXlstmGolden, TheNxaiFormOfFamilyAGivesTheLogitsOfThePackage) {
  const SafetensorsFile file(testing::golden_path("xlstm_large_tiny.safetensors"));
  const TempDir dir;
  // The package's own configuration: no model_type, no names of transformers.
  write_model(dir / "model", golden_parameters(file), file.metadata().at("config"));
  import_model(dir / "model", dir / "run", {});
  const Tensor tokens = testing::split_tokens(file.load("ids")).first;
  EXPECT_LE(testing::relative_error(logits_of(dir / "run", tokens),
                                    testing::to_doubles(file.load("logits"))),
            1e-5);
}

struct Variant {
  const char* name;
  ExportOptions options;
  bool tied;
};

class InterchangeXlstmRoundTrip : public ::testing::TestWithParam<Variant> {};

TEST_P(InterchangeXlstmRoundTrip, ReturnsTheWeightsRoundedOnce) {
  const auto& [name, options, tied] = GetParam();
  const TempDir dir;
  const Xlstm model(small_config(tied));
  const auto weights = random_weights(model);
  write_model(dir / "model", weights, xlstm_json(model.config()));
  import_model(dir / "model", dir / "run", {});
  export_model(open_checkpoint(dir / "run"), dir / "out", options);
  import_model(dir / "out", dir / "again", {});
  const SafetensorsFile file = open_checkpoint(dir / "again").model();
  ASSERT_EQ(file.names().size(), weights.size());
  for (const NamedTensor& w : weights) {
    auto want = w.tensor.to_vector<float>();
    if (options.dtype == DType::kBF16) {
      for (float& x : want) x = static_cast<float>(bfloat16(x));
    }
    EXPECT_EQ(file.load(w.name).to_vector<float>(), want) << w.name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, InterchangeXlstmRoundTrip,
    ::testing::Values(Variant{"Vanilla", {}, false}, Variant{"Tied", {}, true},
                      Variant{"OtherLayout", {.layout = {.slstm = SlstmLayout::kCuda}}, false},
                      Variant{"TiedOtherLayoutBf16Shards",
                              {.dtype = DType::kBF16,
                               .layout = {.slstm = SlstmLayout::kCuda},
                               .shard_bytes = 3000},
                              true}),
    [](const auto& param) { return param.param.name; });

TEST(InterchangeXlstm, ExportsRecurrentWeightsInTheChosenLayout) {
  const TempDir dir;
  const Xlstm model(small_config(true));
  const auto weights = random_weights(model);
  write_model(dir / "model", weights, xlstm_json(model.config()));
  import_model(dir / "model", dir / "run", {});
  export_model(open_checkpoint(dir / "run"), dir / "out",
               {.layout = {.slstm = SlstmLayout::kCuda}});
  const SafetensorsFile out(dir / "out/model.safetensors");
  for (const NamedTensor& w : weights) {
    if (!w.name.starts_with(kCell)) continue;
    const NamedTensor want = arranged_for_cuda(w, 3);
    EXPECT_EQ(out.info(w.name).shape, want.tensor.shape());
    EXPECT_EQ(out.load(w.name).to_vector<float>(), want.tensor.to_vector<float>()) << w.name;
  }
  // A strict load_state_dict() wants the shared matrix under both names.
  EXPECT_EQ(out.load("lm_head.weight").to_vector<float>(),
            out.load("token_embedding.weight").to_vector<float>());
  const json config = json::parse(testing::read_file(dir / "out/config.json"));
  EXPECT_EQ(config.at("slstm_block").at("slstm").at("backend"), "cuda");
}

TEST(InterchangeXlstm, TensorsThatDoNotFitAreListedAtOnceWithShapes) {
  const TempDir dir;
  const Xlstm model(small_config());
  auto weights = random_weights(model);
  XlstmConfig other = small_config();
  other.slstm_at = {2};
  write_model(dir / "other", weights, xlstm_json(other));
  expect_error<CheckpointError>(
      [&] { import_model(dir / "other", dir / "run", {}); },
      {"missing: xlstm_block_stack.blocks.1.xlstm.proj_up.weight (128, 24)",
       "missing: xlstm_block_stack.blocks.2.xlstm.slstm_cell._recurrent_kernel_ (3, 32, 8)",
       "unexpected: xlstm_block_stack.blocks.1.ffn.proj_up.weight (128, 24)",
       "blocks.2.xlstm.conv1d.conv.weight: shape (64, 1, 3), expected (24, 1, 4)"});
  weights.front().tensor = Tensor::zeros(weights.front().tensor.shape(), DType::kI32);
  weights.push_back({"extra", Tensor::zeros({2, 3}, DType::kF32)});
  write_model(dir / "extra", weights, xlstm_json(small_config()));
  expect_error<CheckpointError>([&] { import_model(dir / "extra", dir / "run", {}); },
                                {"unexpected: extra (2, 3)", "is not a floating dtype"});
  EXPECT_FALSE(fs::exists(dir / "run"));
}

TEST(InterchangeXlstm, ATiedHeadMustEqualTheEmbedding) {
  const TempDir dir;
  const Xlstm model(small_config(true));
  auto weights = random_weights(model);
  weights.push_back({"lm_head.weight", Tensor::zeros({11, 24}, DType::kF32)});
  write_model(dir / "model", weights, xlstm_json(model.config()));
  expect_error<CheckpointError>([&] { import_model(dir / "model", dir / "run", {}); },
                                {"tie_weights", "lm_head.weight", "differ"});
}

TEST(InterchangeXlstm, FusedWeightsAreRefused) {
  const TempDir dir;
  const Xlstm model(small_config());
  write_model(dir / "model", random_weights(model), xlstm_json(model.config()));
  import_model(dir / "model", dir / "run", {});
  expect_error<UsageError>(
      [&] {
        export_model(open_checkpoint(dir / "run"), dir / "out",
                     {.layout = {.mode = WeightMode::kFused}});
      },
      {"family xlstm have no fused weights"});
}

TEST(InterchangeXlstm, ConfigurationsAreReadBackAsWritten) {
  XlstmConfig c = small_config(true);
  c.add_post_blocks_norm = false;
  c.weight_decay_on_embedding = true;
  c.mlstm.qkv_proj_blocksize = 8;
  c.mlstm.proj_factor = 1.5;
  c.slstm.conv1d_kernel_size = 2;
  c.feedforward.proj_factor = 2.25;
  const std::string text = xlstm_json(c);
  EXPECT_EQ(xlstm_json(parse_xlstm_json("c", text)), text);
  EXPECT_EQ(parse_xlstm_json("c", text).mlstm.proj_factor, 1.5);
}

TEST(InterchangeXlstm, ConfigurationsInThePackagesOtherFormsAreRead) {
  json c = json::parse(xlstm_json(small_config()));
  c["slstm_at"] = "all";
  EXPECT_EQ(parse_xlstm_json("c", c.dump()).slstm_at, (std::vector<std::int64_t>{0, 1, 2}));
  c["slstm_at"] = json::array();
  c["mlstm_block"] = nullptr;
  EXPECT_EQ(parse_xlstm_json("c", c.dump()).slstm_at.size(), 3u);
  c = json::parse(xlstm_json(small_config()));
  c["slstm_at"] = json::array();
  c["slstm_block"] = nullptr;
  EXPECT_TRUE(parse_xlstm_json("c", c.dump()).slstm_at.empty());
}

TEST(InterchangeXlstm, ContradictingConfigurationsAreRefusedWithAllProblems) {
  json c = json::parse(xlstm_json(small_config()));
  c["vocab_size"] = "many";
  c["mlstm_block"]["mlstm"]["num_heads"] = 0;
  c["slstm_block"]["feedforward"]["act_fn"] = "relu";
  c["slstm_block"]["slstm"] = 3;
  expect_error<CheckpointError>(
      [&] { parse_xlstm_json("dir/config.json", c.dump()); },
      {"dir/config.json", "vocab_size is \"many\"", "mlstm_block.mlstm.num_heads is 0",
       "slstm_block.feedforward.act_fn is \"relu\"", "slstm_block.slstm is 3, must be an object"});
  const auto refuse = [](const std::function<void(json&)>& change, const std::string& part) {
    json config = json::parse(xlstm_json(small_config()));
    change(config);
    expect_error<CheckpointError>([&] { parse_xlstm_json("config.json", config.dump()); },
                                  {"config.json", part});
  };
  refuse([](json& j) { j["slstm_block"] = nullptr; }, "slstm_block is null");
  refuse([](json& j) { j["slstm_block"]["feedforward"] = nullptr; }, "feedforward is null");
  refuse([](json& j) { j["slstm_at"] = {7}; }, "slstm_at names block 7");
  refuse([](json& j) { j["slstm_at"] = {-1}; }, "slstm_at must be");
  // Not each of them by itself.
  refuse([](json& j) { j["slstm_at"] = json(10'000, 7); }, "has 10000 entries for 3 blocks");
  refuse([](json& j) { j["num_blocks"] = 1 << 20; }, "num_blocks is 1048576");
  refuse([](json& j) { j["embedding_dim"] = 1 << 20; }, "embedding_dim is 1048576");
  refuse([](json& j) { j["mlstm_block"]["mlstm"]["num_heads"] = 5; }, "num_heads = 5");
  refuse([](json& j) { j["slstm_block"]["slstm"]["num_heads"] = 5; }, "slstm.num_heads = 5");
  refuse([](json& j) { j.erase("embedding_dim"); }, "embedding_dim is missing");
}

TEST(ImportMemory, IsPlannedBeforeAnythingIsWritten) {
  const TempDir dir;
  const Xlstm model(small_config());
  write_model(dir / "model", random_weights(model), xlstm_json(model.config()));
  // The largest tensors are (128, 24); a swapped one would count twice.
  const PublishedModel published = read_published_model(ModelFiles::open(dir / "model"));
  const ImportPlan plan = plan_import(published);
  EXPECT_EQ(plan.memory, 128u * 24u * 4u);
  EXPECT_EQ(plan.parameters, model.parameters().count());
  EXPECT_EQ(plan.disk, static_cast<std::size_t>(model.parameters().count()) * 4u);
  expect_error<OutOfMemoryError>(
      [&] { import_model(dir / "model", dir / "run", {.memory_limit = plan.memory - 1}); },
      {"0.0 MiB", "proj_up.weight (128, 24)", "available"});
  EXPECT_FALSE(fs::exists(dir / "run"));
  import_model(dir / "model", dir / "run", {.memory_limit = plan.memory});
}

TEST(ImportMemory, HoldsNoMoreThanTheLargestTensor) {
  const TempDir dir;
  for (const bool fused : {false, true}) {
    XlstmLargeConfig c;
    c.embedding_dim = 64;
    c.num_heads = 2;
    c.num_blocks = 6;
    c.vocab_size = 700;
    const XlstmLarge model(c);
    const std::string form = fused ? "fused" : "single";
    write_model(dir / "model", random_weights(model), hf_config_json(c));
    import_model(dir / "model", dir / (form + "-run"), {});
    export_model(open_checkpoint(dir / (form + "-run")), dir / form,
                 {.dtype = DType::kBF16,
                  .layout = {.mode = fused ? WeightMode::kFused : WeightMode::kSingle},
                  .shard_bytes = 100'000});
    drop_memory_cache(kCpu);
    const std::size_t before = memory_stats(kCpu).total_used;
    reset_peak_memory(kCpu);
    import_model(dir / form, dir / (form + "-again"), {});
    constexpr std::size_t kLargest = 700 * 64 * 4;
    EXPECT_LE(memory_stats(kCpu).total_peak - before, kLargest + 4096) << form;
  }
}

}  // namespace
}  // namespace carousel
