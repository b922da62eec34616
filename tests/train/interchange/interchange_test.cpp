#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "layers/xlstm_large.h"
#include "tests/support/devices.h"
#include "tests/support/errors.h"
#include "tests/support/golden.h"
#include "tests/support/random.h"
#include "tests/support/temp_dir.h"
#include "train/checkpoint/directory.h"
#include "train/interchange/export.h"
#include "train/interchange/import.h"
#include "train/interchange/published_model.h"
#include "train/run_directory.h"
#include "train/weights.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::expect_error;
using testing::TempDir;

constexpr const char* kBlock = "backbone.blocks.1.";

XlstmLargeConfig small_config(bool bias = false) {
  XlstmLargeConfig c;
  c.embedding_dim = 24;
  c.num_heads = 2;
  c.num_blocks = 2;
  c.vocab_size = 11;
  c.qk_dim_factor = 0.5;
  c.ffn_proj_factor = 1.5;
  c.ffn_round_up_to_multiple_of = 5;
  c.use_bias = bias;
  return c;
}

// Random weights, so that no two parameters are alike.
std::vector<NamedTensor> random_weights(const XlstmLarge& model) {
  std::vector<NamedTensor> weights;
  for (const Parameter& p : model.parameters().all()) {
    weights.push_back(
        {p.spec.name, testing::random_normal<float>(p.spec.shape, 1 + weights.size())});
  }
  return weights;
}

// A checkpoint of a small model; returns its path.
fs::path save_small(const TempDir& dir, const std::vector<NamedTensor>& weights,
                    const XlstmLargeConfig& config) {
  save_checkpoint(dir / "run/checkpoints", 7,
                  {.model = weights, .config_json = hf_config_json(config)});
  return dir / "run/checkpoints/step-00000007";
}

// A model directory with these tensors.
void write_model(const fs::path& directory, const std::vector<NamedTensor>& tensors,
                 const XlstmLargeConfig& config) {
  fs::create_directories(directory);
  write_safetensors(directory / "model.safetensors", tensors, {{"format", "pt"}});
  std::ofstream(directory / "config.json") << hf_config_json(config);
}

std::vector<float> values_of(const SafetensorsFile& file, const std::string& name) {
  return file.load_as(name, DType::kF32).to_vector<float>();
}

void expect_weights(const SafetensorsFile& file, const std::vector<NamedTensor>& want) {
  ASSERT_EQ(file.names().size(), want.size());
  for (const auto& [name, tensor] : want) {
    EXPECT_EQ(values_of(file, name), tensor.to_vector<float>()) << name;
  }
}

// The relative error of an imported model's logits against transformers'.
double logits_error_of_import(DeviceChoice choice, DType precision = DType::kF32) {
  const TempDir dir;
  import_model(testing::golden_path("hf_tiny"), dir / "run", {});
  const TrainedModel trained = load_trained_model(dir / "run", choice, precision);
  const SafetensorsFile expected(testing::golden_path("hf_tiny/expected.safetensors"));
  const NoGrad no_grad;
  const Tensor ids = expected.load("ids").to(trained.model->parameters().master().device());
  const Variable raw = trained.model->logits(trained.model->hidden(ids, {}, {}));
  std::vector<double> logits = testing::to_doubles(raw.value());
  const double cap = trained.model->logit_cap();
  for (double& x : logits) x = cap * std::tanh(x / cap);
  return testing::relative_error(logits, testing::to_doubles(expected.load("logits")));
}

TEST(InterchangeGolden, AnImportedModelGivesTheLogitsOfTransformers) {
  EXPECT_LE(logits_error_of_import(DeviceChoice::kUseCpu), 1e-4);
}

TEST(CudaReference, AnImportedModelGivesTheLogitsOfTransformers) {
  CAROUSEL_REQUIRE_CUDA();
  EXPECT_LE(logits_error_of_import(DeviceChoice::kUseCuda), 5e-5);
  // In bf16, at most twice what the CPU errs, which rounds at the same places.
  EXPECT_LE(logits_error_of_import(DeviceChoice::kUseCuda, DType::kBF16),
            2.0 * logits_error_of_import(DeviceChoice::kUseCpu, DType::kBF16));
}

TEST(InterchangeGolden, ExportingWhatWasImportedGivesTheSameTensors) {
  const TempDir dir;
  const std::string source = testing::golden_path("hf_tiny");
  import_model(source, dir / "run", {});
  export_model(open_checkpoint(dir / "run"), dir / "out", {});
  const SafetensorsFile theirs(source + "/model.safetensors");
  const SafetensorsFile ours(dir / "out/model.safetensors");
  EXPECT_EQ(ours.metadata(), theirs.metadata());
  ASSERT_EQ(ours.names().size(), theirs.names().size());
  for (const std::string& name : theirs.names()) {
    EXPECT_EQ(ours.info(name).shape, theirs.info(name).shape) << name;
    EXPECT_EQ(values_of(ours, name), values_of(theirs, name)) << name;
  }
  const auto config = [](const fs::path& path) {
    return json::parse(testing::read_file(path.string()));
  };
  EXPECT_EQ(config(dir / "out/config.json").at("ffn_proj_factor"),
            config(source + "/config.json").at("ffn_proj_factor"));
}

struct Variant {
  const char* name;
  ExportOptions options;
  bool bias;
};

class InterchangeRoundTrip : public ::testing::TestWithParam<Variant> {};

TEST_P(InterchangeRoundTrip, ReturnsTheWeightsRoundedOnce) {
  const auto& [name, options, bias] = GetParam();
  const TempDir dir;
  const XlstmLarge model(small_config(bias));
  std::vector<NamedTensor> weights = random_weights(model);
  export_model(Checkpoint::open(save_small(dir, weights, model.config())), dir / "hf", options);
  import_model(dir / "hf", dir / "again", {});
  if (options.dtype != DType::kF32) {
    for (NamedTensor& w : weights) {
      std::vector<float> values = w.tensor.to_vector<float>();
      for (float& x : values) {
        x = options.dtype == DType::kF16 ? static_cast<float>(float16(x))
                                         : static_cast<float>(bfloat16(x));
      }
      w.tensor = Tensor::from<float>(values, w.tensor.shape());
    }
  }
  expect_weights(open_checkpoint(dir / "again").model(), weights);
}

INSTANTIATE_TEST_SUITE_P(
    All, InterchangeRoundTrip,
    ::testing::Values(
        Variant{"Plain", {}, false}, Variant{"Bias", {}, true},
        Variant{"Bf16Shards", {.dtype = DType::kBF16, .shard_bytes = 3000}, false},
        Variant{"F16Fused", {.dtype = DType::kF16, .layout = {.mode = WeightMode::kFused}}, false},
        Variant{"FusedBiasNxaiShards",
                {.layout = {.naming = Naming::kNxai, .mode = WeightMode::kFused}, .shard_bytes = 1},
                true}),
    [](const auto& param) { return param.param.name; });

TEST(Interchange, FusedTensorsStackTheirPartsInThePublishedOrder) {
  const TempDir dir;
  const XlstmLarge model(small_config());
  const auto weights = random_weights(model);
  const fs::path checkpoint = save_small(dir, weights, model.config());
  export_model(Checkpoint::open(checkpoint), dir / "hf",
               {.layout = {.naming = Naming::kNxai, .mode = WeightMode::kFused}});
  const SafetensorsFile single(checkpoint / "model.safetensors");
  const SafetensorsFile fused(dir / "hf/model.safetensors");
  EXPECT_TRUE(fused.contains("embedding.weight"));
  const auto expect_stack = [&](const std::string& name, const std::vector<std::string>& parts) {
    std::vector<float> want;
    for (const std::string& part : parts) {
      const auto values = values_of(single, kBlock + part);
      want.insert(want.end(), values.begin(), values.end());
    }
    EXPECT_EQ(values_of(fused, kBlock + name), want) << name;
  };
  const std::string cell = "mlstm_layer.";
  expect_stack(cell + "qkv_opreact.weight", {cell + "q.weight", cell + "k.weight",
                                             cell + "v.weight", cell + "ogate_preact.weight"});
  for (const std::string leaf : {"weight", "bias"}) {
    expect_stack(cell + "ifgate_preact." + leaf,
                 {cell + "igate_preact." + leaf, cell + "fgate_preact." + leaf});
  }
  expect_stack("ffn.proj_up_gate_z.weight", {"ffn.proj_up_gate.weight", "ffn.proj_up.weight"});
}

TEST(Interchange, ShardsAreNumberedAndIndexed) {
  const TempDir dir;
  const XlstmLarge model(small_config());
  const auto weights = random_weights(model);
  export_model(Checkpoint::open(save_small(dir, weights, model.config())), dir / "hf",
               {.shard_bytes = 4000});
  const json index = json::parse(testing::read_file(dir / "hf/model.safetensors.index.json"));
  std::uint64_t total = 0;
  for (const NamedTensor& w : weights) total += w.tensor.bytes();
  EXPECT_EQ(index.at("metadata").at("total_size"), total);
  EXPECT_EQ(index.at("weight_map").size(), weights.size());
  EXPECT_FALSE(fs::exists(dir / "hf/model.safetensors"));
  for (const auto& entry : fs::directory_iterator(dir / "hf")) {
    const std::string name = entry.path().filename().string();
    EXPECT_EQ(name.find(".tmp"), std::string::npos) << name;
    if (!name.starts_with("model-")) continue;
    std::uint64_t bytes = 0;
    const SafetensorsFile shard(entry.path());
    for (const std::string& tensor : shard.names()) bytes += shard.info(tensor).bytes;
    EXPECT_TRUE(bytes <= 4000 || shard.names().size() == 1) << name;
  }
}

TEST(Interchange, TheFeedForwardWidthIsTheTensors) {
  const TempDir dir;
  XlstmLargeConfig stated = small_config();
  const XlstmLarge model(with_ffn_width(stated, 41));  // as another rounding rule gives
  write_model(dir / "hf", random_weights(model), stated);
  import_model(dir / "hf", dir / "run", {});
  const Checkpoint imported = open_checkpoint(dir / "run");
  EXPECT_EQ(ffn_dim(parse_hf_config("c", imported.config_json())), 41);
  EXPECT_EQ(
      ffn_dim(load_trained_model(dir / "run", DeviceChoice::kUseCpu).config.model.xlstm_large), 41);
}

TEST(Interchange, AllTensorsThatDoNotFitAreListed) {
  const TempDir dir;
  const XlstmLarge model(small_config());
  std::vector<NamedTensor> weights = random_weights(model);
  std::erase_if(weights, [](const auto& w) { return w.name == "backbone.out_norm.weight"; });
  for (NamedTensor& w : weights) {
    if (w.name == "lm_head.weight") w.tensor = Tensor::zeros({12, 24}, DType::kF32);
    if (w.name == "backbone.embeddings.weight") w.tensor = Tensor::zeros({11, 24}, DType::kI32);
  }
  weights.push_back({"backbone.blocks.2.norm_ffn.weight", Tensor::zeros({24}, DType::kF32)});
  write_model(dir / "hf", weights, model.config());
  expect_error<CheckpointError>([&] { import_model(dir / "hf", dir / "run", {}); },
                                {"missing: backbone.out_norm.weight (24)",
                                 "lm_head.weight: shape (12, 24), expected (11, 24)",
                                 "backbone.embeddings.weight: i32 is not a floating dtype",
                                 "unexpected: backbone.blocks.2.norm_ffn.weight (24)"});
  EXPECT_FALSE(fs::exists(dir / "run/checkpoints/step-00000000"));
}

TEST(Interchange, AConfigurationThatContradictsTheTensorsIsRefused) {
  const TempDir dir;
  const XlstmLarge model(small_config());
  const auto refuse = [&](const char* name, const XlstmLargeConfig& stated,
                          std::initializer_list<std::string> parts) {
    write_model(dir / name, random_weights(model), stated);
    expect_error<CheckpointError>([&] { import_model(dir / name, dir / "run", {}); }, parts);
  };
  XlstmLargeConfig deeper = small_config();
  deeper.num_blocks = 3;
  refuse("deeper", deeper, {"missing: backbone.blocks.2.norm_mlstm.weight (24)"});
  XlstmLargeConfig wider = small_config();
  wider.embedding_dim = 48;
  refuse("wider", wider, {"backbone.embeddings.weight: shape (11, 24), expected (11, 48)"});
  XlstmLargeConfig biased = small_config(true);
  refuse("biased", biased, {"missing: backbone.blocks.0.mlstm_layer.q.bias (12)"});
}

TEST(Interchange, AModelThatNoRunCanHaveLeavesNothing) {
  const TempDir dir;
  XlstmLargeConfig config = small_config();
  config.norm_eps = 0.0;
  config.chunk_size = 5000;
  write_model(dir / "hf", random_weights(XlstmLarge(config)), config);
  expect_error<CheckpointError>([&] { import_model(dir / "hf", dir / "run", {}); },
                                {"hf/config.json", "model.norm_eps", "model.chunk_size: 5000"});
  EXPECT_FALSE(fs::exists(dir / "run"));
}

TEST(Interchange, BiasesOfNormsAreRefused) {
  const TempDir dir;
  const XlstmLarge model(small_config(true));
  for (const char* norm : {"norm_mlstm", "norm_ffn", "mlstm_layer.multihead_norm"}) {
    auto weights = random_weights(model);
    const std::string name = fmt::format("{}{}.bias", kBlock, norm);
    weights.push_back({name, Tensor::zeros({24}, DType::kF32)});
    write_model(dir / norm, weights, model.config());
    expect_error<CheckpointError>([&] { import_model(dir / norm, dir / "run", {}); },
                                  {name, "norms have no biases", "use_bias: true"});
  }
}

TEST(Interchange, AnIndexMustMatchItsShards) {
  const TempDir dir;
  const XlstmLarge model(small_config());
  const Checkpoint checkpoint =
      Checkpoint::open(save_small(dir, random_weights(model), model.config()));
  export_model(checkpoint, dir / "hf", {.shard_bytes = 4000});
  const std::string index_path = "hf/model.safetensors.index.json";
  const json good = json::parse(testing::read_file(dir / index_path));
  const std::string embedding = "backbone.embeddings.weight";
  const auto refuse = [&](const json& index, std::initializer_list<std::string> parts) {
    dir.write(index_path, index.is_string() ? index.get<std::string>() : index.dump());
    expect_error<CheckpointError>([&] { ModelFiles::open(dir / "hf"); }, parts);
  };
  const auto with = [&](const std::string& tensor, const json& shard) {
    json index = good;
    index["weight_map"][tensor] = shard;
    return index;
  };
  refuse(with(embedding, "model-00009-of-00009.safetensors"),
         {"index.json", "shard 'model-00009-of-00009.safetensors' is absent"});
  refuse(with(embedding, "../model.safetensors"), {"'../model.safetensors' is not a plain file"});
  refuse(with(embedding, ""), {"'' is not a plain file name"});
  refuse(with("ghost", good["weight_map"][embedding]), {"tensor 'ghost' is not in 'model-00001"});
  refuse(with(embedding, good["weight_map"]["lm_head.weight"]),
         {"holds tensor 'backbone.embeddings.weight', which the index places in"});
  json forgets = good;
  forgets["weight_map"].erase("backbone.out_norm.weight");
  refuse(forgets, {"'backbone.out_norm.weight', which the index does not name"});
  refuse(with(embedding, 3), {"index.json", "broken"});
  refuse(json("{"), {"index.json", "broken"});
  refuse(json("{}"), {"index.json", "broken"});
  refuse(json{{"weight_map", json::object()}}, {"names no tensors"});
  dir.write(index_path, good.dump());
  EXPECT_EQ(ModelFiles::open(dir / "hf").names().size(), good["weight_map"].size());
}

TEST(Interchange, DirectoriesWithoutWeightsAreRefused) {
  const TempDir dir;
  expect_error<CheckpointError>([&] { import_model(dir.path(), dir / "run", {}); },
                                {"neither model.safetensors nor model.safetensors.index.json"});
  expect_error<CheckpointError>([&] { import_model(dir / "none", dir / "run", {}); }, {"neither"});
  write_safetensors(dir / "model.safetensors", {});
  expect_error<CheckpointError>([&] { import_model(dir.path(), dir / "run", {}); },
                                {"config.json", "No such file"});
}

TEST(Interchange, NothingIsOverwritten) {
  const TempDir dir;
  const XlstmLarge model(small_config());
  const fs::path checkpoint = save_small(dir, random_weights(model), model.config());
  export_model(Checkpoint::open(checkpoint), dir / "hf", {});
  expect_error<UsageError>([&] { export_model(Checkpoint::open(checkpoint), dir / "hf", {}); },
                           {"hf' is not empty"});
  expect_error<UsageError>([&] { import_model(dir / "hf", dir / "run", {}); },
                           {"run' holds checkpoints already"});
  dir.write("configured/config.yaml", "mine");
  expect_error<UsageError>([&] { import_model(dir / "hf", dir / "configured", {}); },
                           {"configured/config.yaml' exists already"});
  EXPECT_EQ(testing::read_file(dir / "configured/config.yaml"), "mine");
  EXPECT_FALSE(fs::exists(dir / "configured/checkpoints"));
}

TEST(Interchange, CheckpointsWithoutAPublishedConfigurationCannotBeExported) {
  const TempDir dir;
  save_checkpoint(dir.path(), 1, {});
  expect_error<CheckpointError>(
      [&] { export_model(Checkpoint::open(dir / "step-00000001"), dir / "hf", {}); },
      {"step-00000001", "no config.json"});
}

TEST(Interchange, Float16DoesNotSilentlyOverflow) {
  const TempDir dir;
  const XlstmLarge model(small_config());
  std::vector<NamedTensor> weights = random_weights(model);
  weights.front().tensor.data<float>()[5] = 7e4f;
  const Checkpoint checkpoint = Checkpoint::open(save_small(dir, weights, model.config()));
  expect_error<CheckpointError>(
      [&] { export_model(checkpoint, dir / "hf", {.dtype = DType::kF16}); },
      {weights.front().name, "beyond the range of float16"});
}

TEST(Interchange, ATokenizerComesAlong) {
  const TempDir dir;
  const XlstmLarge model(small_config());
  write_model(dir / "hf", random_weights(model), model.config());
  const std::string small = dir.write("tokenizer.json", R"({"kind": "none", "vocab_size": 9})");
  import_model(dir / "hf", dir / "run", {.tokenizer = small});
  EXPECT_EQ(checkpoint_tokenizer(open_checkpoint(dir / "run"))->vocab_size(), 9);
  const std::string large = dir.write("large.json", R"({"kind": "none", "vocab_size": 12})");
  expect_error<UsageError>([&] { import_model(dir / "hf", dir / "run2", {.tokenizer = large}); },
                           {"large.json' has 12 tokens, the model only 11"});
}

}  // namespace
}  // namespace carousel
