#include "train/interchange/xlstm_json.h"

#include <numeric>

#include "layers/xlstm.h"
#include "train/interchange/json_reader.h"

namespace carousel {
namespace {

// Blocks and the initial values of their biases are built before the tensors are looked for.
constexpr std::int64_t kMaxBlocks = 1024;
constexpr std::int64_t kMaxDim = 65536;
constexpr double kSmallest = 1e-6;
constexpr double kMaxFactor = 64.0;

void read_mlstm(JsonReader mlstm, XlstmConfig::Mlstm& c) {
  mlstm.integer("num_heads", c.num_heads);
  mlstm.integer("conv1d_kernel_size", c.conv1d_kernel_size, 64);
  mlstm.integer("qkv_proj_blocksize", c.qkv_proj_blocksize);
  mlstm.number("proj_factor", c.proj_factor, kSmallest, kMaxFactor);
  mlstm.must_be("round_proj_up_dim_up", {true}, "widths are only ever rounded up");
  mlstm.must_be("round_proj_up_to_multiple_of", {64}, "widths are only ever rounded to 64");
}

void read_slstm(JsonReader block, XlstmConfig& c) {
  JsonReader slstm = block.at("slstm");
  slstm.integer("num_heads", c.slstm.num_heads);
  slstm.integer("conv1d_kernel_size", c.slstm.conv1d_kernel_size, 64);
  slstm.must_be("function", {"slstm"}, "only 'slstm' is supported");
  if (block.is_null("feedforward")) {
    block.fail("feedforward is null: sLSTM blocks without one are not supported");
  }
  JsonReader ffn = block.at("feedforward");
  ffn.number("proj_factor", c.feedforward.proj_factor, kSmallest, kMaxFactor);
  ffn.must_be("act_fn", {"gelu"}, "only 'gelu' is supported");
  ffn.must_be("bias", {false}, "only false is supported");
  ffn.must_be("ff_type", {"ffn_gated"}, "only 'ffn_gated' is supported");
  ffn.must_be("round_proj_up_dim_up", {true}, "widths are only ever rounded up");
  ffn.must_be("round_proj_up_to_multiple_of", {64}, "widths are only ever rounded to 64");
}

// A list, "all", or nothing where one kind of block is absent.
void read_slstm_at(JsonReader& reader, const json& object, XlstmConfig& c) {
  const auto found = object.find("slstm_at");
  const bool all = reader.is_null("mlstm_block") || (found != object.end() && *found == "all");
  if (all) {
    c.slstm_at.resize(static_cast<std::size_t>(std::max<std::int64_t>(c.num_blocks, 0)));
    std::iota(c.slstm_at.begin(), c.slstm_at.end(), 0);
  } else if (found != object.end() && !found->is_null()) {
    // Bounded first: to look for repetitions takes the square of the length.
    if (found->size() > static_cast<std::size_t>(std::max<std::int64_t>(c.num_blocks, 0))) {
      reader.fail(
          fmt::format("slstm_at has {} entries for {} blocks", found->size(), c.num_blocks));
      return;
    }
    const auto is_block = [](const json& v) { return v.is_number_unsigned() && v <= kMaxInteger; };
    if (!found->is_array() || !std::ranges::all_of(*found, is_block)) {
      reader.fail("slstm_at must be \"all\" or a list of block numbers");
    } else {
      c.slstm_at = found->get<std::vector<std::int64_t>>();
    }
  }
  if (!c.slstm_at.empty() && reader.is_null("slstm_block")) {
    reader.fail("slstm_at names blocks, but slstm_block is null");
  }
}

}  // namespace

std::string xlstm_json(const XlstmConfig& c, SlstmLayout layout) {
  nlohmann::ordered_json config = {
      {"vocab_size", c.vocab_size},
      {"embedding_dim", c.embedding_dim},
      {"num_blocks", c.num_blocks},
      {"context_length", c.context_length},
      {"slstm_at", c.slstm_at},
      {"add_post_blocks_norm", c.add_post_blocks_norm},
      {"bias", c.bias},
      {"dropout", c.dropout},
      {"tie_weights", c.tie_weights},
      {"weight_decay_on_embedding", c.weight_decay_on_embedding},
      {"mlstm_block",
       {{"mlstm",
         {{"num_heads", c.mlstm.num_heads},
          {"conv1d_kernel_size", c.mlstm.conv1d_kernel_size},
          {"qkv_proj_blocksize", c.mlstm.qkv_proj_blocksize},
          {"proj_factor", c.mlstm.proj_factor}}}}},
      {"slstm_block",
       {{"slstm",
         {{"num_heads", c.slstm.num_heads},
          {"conv1d_kernel_size", c.slstm.conv1d_kernel_size},
          {"backend", layout == SlstmLayout::kCuda ? "cuda" : "vanilla"}}},
        {"feedforward",
         {{"proj_factor", c.feedforward.proj_factor}, {"act_fn", c.feedforward.act_fn}}}}},
  };
  return config.dump(2) + "\n";
}

XlstmConfig parse_xlstm_json(const std::filesystem::path& path, const std::string& text) {
  const json object = parse_json_object(path, text);
  JsonReader reader(object);
  XlstmConfig c;
  reader.required("vocab_size", c.vocab_size);
  reader.required("embedding_dim", c.embedding_dim);
  reader.required("num_blocks", c.num_blocks);
  if (c.num_blocks > kMaxBlocks) {
    reader.fail(fmt::format("num_blocks is {}, must be at most {}", c.num_blocks, kMaxBlocks));
    c.num_blocks = kMaxBlocks;
  }
  if (c.embedding_dim > kMaxDim) {
    reader.fail(fmt::format("embedding_dim is {}, must be at most {}", c.embedding_dim, kMaxDim));
  }
  reader.integer("context_length", c.context_length);
  reader.boolean("add_post_blocks_norm", c.add_post_blocks_norm);
  reader.boolean("bias", c.bias);
  reader.number("dropout", c.dropout, 0.0, 0.999);
  reader.boolean("tie_weights", c.tie_weights);
  reader.boolean("weight_decay_on_embedding", c.weight_decay_on_embedding);
  read_slstm_at(reader, object, c);
  read_mlstm(reader.at("mlstm_block").at("mlstm"), c.mlstm);
  read_slstm(reader.at("slstm_block"), c);
  if (reader.problems().empty()) {
    for (const std::string& problem : problems_of(c)) reader.fail(problem);
  }
  if (!reader.problems().empty()) {
    throw CheckpointError("'{}' does not describe a model of family xlstm:{}", path.string(),
                          reader.problems());
  }
  return c;
}

}  // namespace carousel
