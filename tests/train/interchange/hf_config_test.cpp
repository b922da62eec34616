#include "train/interchange/hf_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "layers/xlstm_large.h"
#include "tests/support/errors.h"
#include "tests/support/golden.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using nlohmann::json;
using testing::expect_error;

json example() {
  return {{"model_type", "xlstm"},  {"hidden_size", 64}, {"num_heads", 2},
          {"num_hidden_layers", 3}, {"vocab_size", 97},  {"ffn_proj_factor", 2.667}};
}

XlstmLargeConfig parse(const json& config) { return parse_hf_config("config.json", config.dump()); }

void expect_same(const XlstmLargeConfig& a, const XlstmLargeConfig& b) {
  EXPECT_EQ(a.embedding_dim, b.embedding_dim);
  EXPECT_EQ(a.num_heads, b.num_heads);
  EXPECT_EQ(a.num_blocks, b.num_blocks);
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.qk_dim_factor, b.qk_dim_factor);
  EXPECT_EQ(a.v_dim_factor, b.v_dim_factor);
  EXPECT_EQ(a.ffn_proj_factor, b.ffn_proj_factor);
  EXPECT_EQ(a.ffn_round_up_to_multiple_of, b.ffn_round_up_to_multiple_of);
  EXPECT_EQ(a.gate_soft_cap, b.gate_soft_cap);
  EXPECT_EQ(a.output_logit_soft_cap, b.output_logit_soft_cap);
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.eps, b.eps);
  EXPECT_EQ(a.use_bias, b.use_bias);
  EXPECT_EQ(a.add_out_norm, b.add_out_norm);
  EXPECT_EQ(a.chunk_size, b.chunk_size);
}

TEST(HfConfigGolden, WritesEveryKeyThatTransformersWroteWithItsValue) {
  const std::string path = testing::golden_path("hf_tiny/config.json");
  const std::string text = testing::read_file(path);
  const json ours = json::parse(hf_config_json(parse_hf_config(path, text)));
  const json theirs = json::parse(text);
  for (const auto& [key, value] : theirs.items()) {
    // The library's own.
    if (key == "transformers_version") continue;
    ASSERT_TRUE(ours.contains(key)) << key;
    EXPECT_EQ(ours.at(key), value) << key;
  }
}

TEST(HfConfig, ReadsBackWhatItWrites) {
  XlstmLargeConfig c;  // no value is its default
  c.embedding_dim = 192;
  c.num_heads = 3;
  c.num_blocks = 5;
  c.vocab_size = 61;
  c.qk_dim_factor = 0.25;
  c.v_dim_factor = 0.5;
  c.ffn_proj_factor = 1.0 / 3.0;
  c.ffn_round_up_to_multiple_of = 8;
  c.gate_soft_cap = 0.0;
  c.output_logit_soft_cap = 0.0;
  c.norm_eps = 1e-5;
  c.eps = 1e-7;
  c.use_bias = true;
  c.add_out_norm = false;
  c.chunk_size = 16;
  expect_same(parse_hf_config("c", hf_config_json(c, DType::kBF16, WeightMode::kFused)), c);
  expect_same(parse_hf_config("c", hf_config_json({})), {});
}

TEST(HfConfig, NamesTheDTypeAndTheWeightMode) {
  const json c = json::parse(hf_config_json({}, DType::kBF16, WeightMode::kFused));
  EXPECT_EQ(c.at("dtype"), "bfloat16");
  EXPECT_EQ(c.at("weight_mode"), "fused");
  EXPECT_EQ(json::parse(hf_config_json({}, DType::kF16)).at("dtype"), "float16");
}

// transformers refuses null.
TEST(HfConfig, WritesNoCapAsANumberThatChangesNoValue) {
  XlstmLargeConfig c;
  c.gate_soft_cap = 0.0;
  c.output_logit_soft_cap = 1e9;
  const json written = json::parse(hf_config_json(c));
  for (const char* key : {"gate_soft_cap", "output_logit_soft_cap"}) {
    const auto cap = written.at(key).get<float>();
    for (const float x : {1e-6f, 0.3f, -17.0f, 250.0f}) EXPECT_EQ(cap * std::tanh(x / cap), x);
  }
  json null = example();
  null["gate_soft_cap"] = nullptr;
  EXPECT_EQ(parse(null).gate_soft_cap, 0.0);
}

TEST(HfConfig, TellsTransformersToLeaveOutACacheThatDoesNotFit) {
  const auto use_cache = [](std::int64_t dim, double qk, double v) {
    XlstmLargeConfig c;
    c.embedding_dim = dim;
    c.qk_dim_factor = qk;
    c.v_dim_factor = v;
    return json::parse(hf_config_json(c)).at("use_cache").get<bool>();
  };
  EXPECT_TRUE(use_cache(128, 0.5, 1.0));
  EXPECT_FALSE(use_cache(192, 0.5, 1.0));
  EXPECT_FALSE(use_cache(128, 0.5, 0.75));
}

TEST(HfConfig, AcceptsEitherNameOfWidthAndDepth) {
  json c = example();
  EXPECT_EQ(parse(c).embedding_dim, 64);
  c["embedding_dim"] = nullptr;  // transformers writes null for "as hidden_size"
  EXPECT_EQ(parse(c).embedding_dim, 64);
  c.erase("hidden_size");
  c["embedding_dim"] = 128;
  c.erase("num_hidden_layers");
  c["num_blocks"] = 4;
  EXPECT_EQ(parse(c).embedding_dim, 128);
  EXPECT_EQ(parse(c).num_blocks, 4);
}

TEST(HfConfig, ListsAllProblemsAtOnce) {
  json c = example();
  c["embedding_dim"] = 128;
  c["num_heads"] = "two";
  c.erase("vocab_size");
  c["tie_word_embeddings"] = true;
  c["norm_eps"] = -1;
  expect_error<CheckpointError>(
      [&] { parse(c); },
      {"config.json", "hidden_size is 64, but embedding_dim is 128", "num_heads is \"two\"",
       "vocab_size is missing", "tied embeddings are not supported", "norm_eps is -1"});
}

TEST(HfConfig, RefusesWhatItCannotBuild) {
  const auto refuse = [](const char* key, const json& value, const std::string& part) {
    json c = example();
    c[key] = value;
    expect_error<CheckpointError>([&] { parse(c); }, {"config.json", part});
  };
  refuse("model_type", "llama", "only 'xlstm' can be read");
  refuse("weight_mode", "other", "must be 'single' or 'fused'");
  refuse("hidden_size", 0, "whole number");
  refuse("hidden_size", -64, "whole number");
  refuse("hidden_size", 64.0, "whole number");
  refuse("hidden_size", 1ll << 40, "whole number");
  refuse("hidden_size", nullptr, "neither hidden_size nor embedding_dim");
  refuse("num_hidden_layers", 1 << 20, "from 1 to 4096");
  refuse("hidden_size", (1 << 20) + 1, "from 1 to 1048576");  // sizes would overflow
  refuse("num_heads", 3, "num_heads = 3 does not divide");
  refuse("qk_dim_factor", 1e9, "qk_dim_factor");
  refuse("ffn_proj_factor", 0, "ffn_proj_factor");
  refuse("ffn_proj_factor", nullptr, "ffn_proj_factor is null");
  refuse("gate_soft_cap", -1, "gate_soft_cap");
  refuse("use_bias", 1, "use_bias is 1, must be true or false");
}

TEST(HfConfig, RefusesDepthWithoutFollowingIt) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  std::string text = example().dump();
  text.insert(1, fmt::format("\"norm_eps\": {}, ", deep));
  expect_error<CheckpointError>([&] { parse_hf_config("config.json", text); },
                                {"norm_eps is array"});
}

TEST(HfConfig, RefusesBrokenJson) {
  for (const char* text : {"", "{", "[1]", "null", "{\"hidden_size\": 1} x"}) {
    expect_error<CheckpointError>([&] { parse_hf_config("dir/config.json", text); },
                                  {"dir/config.json"});
  }
}

TEST(HfConfig, AnyWidthHasAFactorUnderThePyTorchRule) {
  XlstmLargeConfig c;
  c.embedding_dim = 768;
  c.ffn_proj_factor = 2.667;
  EXPECT_EQ(ffn_dim(c), 2048);  // 2112 under the JAX rule
  EXPECT_EQ(with_ffn_width(c, 2048).ffn_proj_factor, 2.667);
  EXPECT_EQ(ffn_dim(with_ffn_width(c, 2112)), 2112);
  for (const std::int64_t dim : {1, 7, 64, 768, 1000, 4096, 12289}) {
    c.embedding_dim = dim;
    for (std::int64_t width = 1; width < 3000; width += 13) {
      const XlstmLargeConfig fitted = with_ffn_width(c, width);
      ASSERT_EQ(ffn_dim(fitted), width) << dim;
      // Also after a trip through the text of config.json.
      XlstmLargeConfig read = fitted;
      read.ffn_proj_factor = json::parse(json(fitted.ffn_proj_factor).dump()).get<double>();
      ASSERT_EQ(ffn_dim(read), width) << dim;
    }
  }
}

}  // namespace
}  // namespace carousel
