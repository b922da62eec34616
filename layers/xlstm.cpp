// Precision: the residual stream and all linears but the mLSTM gates' in the compute dtype;
// convolutions' weights, mLSTM gates, recurrent weights, states and norm statistics in float32
// (float64 when the compute dtype is float64).
#include "layers/xlstm.h"

#include <algorithm>
#include <cmath>

#include "core/autograd/recompute.h"
#include "core/ops/activation.h"
#include "core/ops/conv.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/gate_linear.h"
#include "core/ops/headwise.h"
#include "core/ops/linear.h"
#include "core/ops/norm.h"
#include "layers/mlstm/cell.h"
#include "layers/slstm/cell.h"

namespace carousel {
namespace {

constexpr NormOptions kNorm{.kind = NormKind::kLayer, .weight_is_residual = true, .eps = 1e-5};
constexpr double kCellEps = 1e-6;
constexpr int kChunkSize = 64;

std::int64_t rounded_up(std::int64_t dim, double factor) {
  return static_cast<std::int64_t>(std::ceil(static_cast<double>(dim) * factor / 64.0)) * 64;
}

bool is_slstm(const XlstmConfig& c, std::int64_t block) {
  return std::ranges::find(c.slstm_at, block) != c.slstm_at.end();
}

// The forget gates' biases of one head rise from −7 to 5, more steeply in later blocks; all others
// are zero. Layout (4, heads, size), gates i, f, z, o.
std::vector<float> slstm_biases(std::int64_t heads, std::int64_t size, std::int64_t block,
                                std::int64_t blocks) {
  const double ratio =
      blocks > 1 ? static_cast<double>(block) / static_cast<double>(blocks - 1) : 0.0;
  std::vector<float> b(static_cast<std::size_t>(4 * heads * size), 0.0f);
  for (std::int64_t e = 0; e < heads * size; ++e) {
    const double x = size > 1 ? static_cast<double>(e % size) / static_cast<double>(size - 1) : 0.0;
    b[static_cast<std::size_t>(heads * size + e)] =
        static_cast<float>(5.0 - 12.0 * std::pow(x, 0.3 + 1.3 * ratio));
  }
  return b;
}

// An optional parameter's.
Variable value_of(const Parameter* parameter) {
  return parameter != nullptr ? parameter->variable : Variable();
}

// Convolves with the window of `state`, if there is one, and replaces it.
Variable convolve(const Variable& x, const Parameter& weight, const Parameter& bias,
                  const Tensor& reset, std::vector<Tensor>* state) {
  if (state == nullptr) return causal_conv_silu(x, weight.variable, bias.variable, reset);
  const Tensor before = state->empty() ? Tensor{} : state->front();
  if (state->empty()) state->emplace_back();
  return causal_conv_silu(x, weight.variable, bias.variable, reset, before, &state->front());
}

}  // namespace

std::int64_t mlstm_inner_dim(const XlstmConfig& config) {
  return rounded_up(config.embedding_dim, config.mlstm.proj_factor);
}

std::int64_t ffn_dim(const XlstmConfig& config) {
  return rounded_up(config.embedding_dim, config.feedforward.proj_factor);
}

std::vector<std::string> problems_of(const XlstmConfig& c) {
  std::vector<std::string> problems;
  const auto divides = [&](std::int64_t width, const char* what, std::int64_t n, const char* key) {
    if (n < 1 || width < n || width % n != 0) {
      problems.push_back(
          fmt::format("{} is {}, which {} = {} does not divide", what, width, key, n));
    }
  };
  if (c.vocab_size < 1) {
    problems.push_back(fmt::format("vocab_size is {}, must be positive", c.vocab_size));
  }
  if (c.feedforward.act_fn != "gelu") {
    problems.push_back(
        fmt::format("feedforward.act_fn is '{}', known is gelu", c.feedforward.act_fn));
  }
  for (const std::int64_t block : c.slstm_at) {
    if (block < 0 || block >= c.num_blocks || std::ranges::count(c.slstm_at, block) != 1) {
      problems.push_back(fmt::format(
          "slstm_at names block {}; each must be in [0, {}) and named once", block, c.num_blocks));
    }
  }
  const auto slstm_blocks = static_cast<std::int64_t>(c.slstm_at.size());
  if (slstm_blocks > 0) {
    divides(c.embedding_dim, "embedding_dim", c.slstm.num_heads, "slstm.num_heads");
  }
  if (slstm_blocks < c.num_blocks) {
    const std::int64_t inner = mlstm_inner_dim(c);
    divides(inner, "the mLSTM's inner width", c.mlstm.num_heads, "mlstm.num_heads");
    divides(inner, "the mLSTM's inner width", c.mlstm.qkv_proj_blocksize,
            "mlstm.qkv_proj_blocksize");
  }
  return problems;
}

Xlstm::Xlstm(const XlstmConfig& config) : config_(config) {
  if (const auto problems = problems_of(config); !problems.empty()) {
    throw UsageError("model.{}", fmt::join(problems, "\nmodel."));
  }
  const std::int64_t d = config.embedding_dim;
  const Shape table{config.vocab_size, d};
  embedding_ = &parameters_.add({.name = "token_embedding.weight",
                                 .shape = table,
                                 .init = init_small(d),
                                 .decay = config.weight_decay_on_embedding});
  for (std::int64_t i = 0; i < config.num_blocks; ++i) {
    const std::string prefix = fmt::format("xlstm_block_stack.blocks.{}.", i);
    const bool slstm = is_slstm(config, i);
    Block block{};
    block.norm = add_vector(prefix + "xlstm_norm.weight", d, init_constant(0));
    add_conv(block, prefix + "xlstm.conv1d.conv", slstm ? d : mlstm_inner_dim(config),
             slstm ? config.slstm.conv1d_kernel_size : config.mlstm.conv1d_kernel_size);
    if (slstm) {
      block.layer = add_slstm(prefix, i);
    } else {
      block.layer = add_mlstm(prefix);
    }
    blocks_.push_back(block);
  }
  if (config.add_post_blocks_norm) {
    out_norm_ = add_vector("xlstm_block_stack.post_blocks_norm.weight", d, init_constant(0));
  }
  if (config.tie_weights) {
    lm_head_ = embedding_;
    linear_parameters_ += static_cast<double>(table.numel());
  } else {
    lm_head_ = add_linear("lm_head.weight", table, init_small(d));
  }
}

Parameter* Xlstm::add_linear(const std::string& name, const Shape& shape, Init init,
                             bool keep_float32) {
  linear_parameters_ += static_cast<double>(shape.numel());
  return &parameters_.add({.name = name,
                           .shape = shape,
                           .init = std::move(init),
                           .decay = true,
                           .keep_float32 = keep_float32});
}

Parameter* Xlstm::add_vector(const std::string& name, std::int64_t size, Init init) {
  return &parameters_.add(
      {.name = name, .shape = {size}, .init = std::move(init), .keep_float32 = true});
}

void Xlstm::add_conv(Block& block, const std::string& name, std::int64_t channels,
                     std::int64_t taps) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(taps));
  block.conv_weight = &parameters_.add({.name = name + ".weight",
                                        .shape = {channels, 1, taps},
                                        .init = init_uniform(-bound, bound),
                                        .decay = true,
                                        .keep_float32 = true});
  block.conv_bias = add_vector(name + ".bias", channels, init_uniform(-bound, bound));
}

Xlstm::MlstmLayer Xlstm::add_mlstm(const std::string& prefix) {
  const std::string layer = prefix + "xlstm.";
  const std::string cell = layer + "mlstm_cell.";
  const std::int64_t d = config_.embedding_dim;
  const std::int64_t inner = mlstm_inner_dim(config_);
  const std::int64_t heads = config_.mlstm.num_heads;
  const std::int64_t size = config_.mlstm.qkv_proj_blocksize;
  const Shape blocks{inner / size, size, size};
  const auto add_bias = [&](const char* projection, std::int64_t width) {
    return config_.bias ? add_vector(layer + projection + ".bias", width, init_constant(0))
                        : nullptr;
  };
  return {
      .up = add_linear(layer + "proj_up.weight", {2 * inner, d}, init_small(d)),
      .down = add_linear(layer + "proj_down.weight", {d, inner}, init_wang(d, config_.num_blocks)),
      .q = add_linear(layer + "q_proj.weight", blocks, init_small(d)),
      .k = add_linear(layer + "k_proj.weight", blocks, init_small(d)),
      .v = add_linear(layer + "v_proj.weight", blocks, init_small(d)),
      .i_weight = add_linear(cell + "igate.weight", {heads, 3 * inner}, init_constant(0), true),
      .i_bias = add_vector(cell + "igate.bias", heads, init_normal(0.1)),
      .f_weight = add_linear(cell + "fgate.weight", {heads, 3 * inner}, init_constant(0), true),
      .f_bias = add_vector(cell + "fgate.bias", heads, init_linspace(3, 6, heads)),
      .head_norm = add_vector(cell + "outnorm.weight", inner, init_constant(0)),
      .skip = add_vector(layer + "learnable_skip", inner, init_constant(1)),
      .up_bias = add_bias("proj_up", 2 * inner),
      .down_bias = add_bias("proj_down", d),
      .q_bias = add_bias("q_proj", inner),
      .k_bias = add_bias("k_proj", inner),
      .v_bias = add_bias("v_proj", inner)};
}

Xlstm::SlstmLayer Xlstm::add_slstm(const std::string& prefix, std::int64_t index) {
  const std::string layer = prefix + "xlstm.";
  const std::int64_t d = config_.embedding_dim;
  const std::int64_t heads = config_.slstm.num_heads;
  const std::int64_t size = d / heads;
  const std::int64_t inner = ffn_dim(config_);
  const Shape gate{heads, size, size};
  // The input gate's weights are stored under the forget gate's name and the other way round: so it
  // is in the published models.
  return {.i = add_linear(layer + "fgate.weight", gate, init_small(d)),
          .f = add_linear(layer + "igate.weight", gate, init_small(d)),
          .z = add_linear(layer + "zgate.weight", gate, init_small(d)),
          .o = add_linear(layer + "ogate.weight", gate, init_small(d)),
          .r = add_linear(layer + "slstm_cell._recurrent_kernel_", {heads, 4 * size, size},
                          init_constant(0), true),
          .b = add_vector(layer + "slstm_cell._bias_", 4 * d,
                          init_values(slstm_biases(heads, size, index, config_.num_blocks))),
          .head_norm = add_vector(layer + "group_norm.weight", d, init_constant(0)),
          .ffn_norm = add_vector(prefix + "ffn_norm.weight", d, init_constant(0)),
          .ffn_up = add_linear(prefix + "ffn.proj_up.weight", {2 * inner, d}, init_small(d)),
          .ffn_down = add_linear(prefix + "ffn.proj_down.weight", {d, inner},
                                 init_wang(d, config_.num_blocks))};
}

Variable Xlstm::maybe_dropout(const Variable& x, const ForwardOptions& options) const {
  return options.training ? apply_dropout(x, config_.dropout) : x;
}

Variable Xlstm::mlstm_layer(const Block& block, const Variable& x, const Tensor& reset,
                            std::vector<Tensor>* state) const {
  const auto& layer = std::get<MlstmLayer>(block.layer);
  const std::int64_t inner = mlstm_inner_dim(config_);
  const std::int64_t heads = config_.mlstm.num_heads;
  const Shape by_head{x.dim(0), x.dim(1), heads, inner / heads};
  const std::vector<Variable> up =
      linear(x, layer.up->variable, value_of(layer.up_bias), {inner, inner});

  mlstm::State initial;
  if (state != nullptr && !state->empty()) {
    initial = {Variable((*state)[1]), Variable((*state)[2]), Variable((*state)[3])};
  }
  const Variable convolved = convolve(up[0], *block.conv_weight, *block.conv_bias, reset, state);
  const Variable q = headwise_linear(convolved, layer.q->variable, value_of(layer.q_bias));
  const Variable k = headwise_linear(convolved, layer.k->variable, value_of(layer.k_bias));
  const Variable v = headwise_linear(up[0], layer.v->variable, value_of(layer.v_bias));
  const auto [i, f] = gate_linear({q, k, v}, {layer.i_weight->variable, layer.f_weight->variable},
                                  {layer.i_bias->variable, layer.f_bias->variable});
  const mlstm::CellOptions options{
      .form = x.dim(1) == 1 ? mlstm::Form::kRecurrent : mlstm::Form::kChunkwise,
      .chunk_size = kChunkSize,
      .eps = kCellEps,
      .return_last_state = state != nullptr};
  const mlstm::CellResult cell = mlstm::cell(reshape(q, by_head), reshape(k, by_head),
                                             reshape(v, by_head), i, f, initial, reset, options);
  if (state != nullptr) {
    *state = {state->front(), cell.last.c.value(), cell.last.n.value(), cell.last.m.value()};
  }
  const Variable normed = head_norm(cell.h, layer.head_norm->variable, {}, kNorm);
  const Variable skipped = skip(convolved, layer.skip->variable, normed);
  return linear(gated(up[1], skipped, Activation::kSilu), layer.down->variable,
                value_of(layer.down_bias));
}

Variable Xlstm::slstm_layer(const Block& block, const Variable& x, const Tensor& reset,
                            const ForwardOptions& options, std::vector<Tensor>* state) const {
  const auto& layer = std::get<SlstmLayer>(block.layer);
  const std::int64_t heads = config_.slstm.num_heads;
  const std::int64_t size = config_.embedding_dim / heads;

  slstm::State initial;
  if (state != nullptr && !state->empty()) {
    initial = {Variable((*state)[1]), Variable((*state)[2]), Variable((*state)[3]),
               Variable((*state)[4])};
  }
  const Variable convolved = convolve(x, *block.conv_weight, *block.conv_bias, reset, state);
  const auto gate = [&](const Variable& from, const Parameter* weight) {
    return reshape(headwise_linear(from, weight->variable), {x.dim(0), x.dim(1), heads, size});
  };
  const slstm::CellResult cell =
      slstm::cell(gate(convolved, layer.i), gate(convolved, layer.f), gate(x, layer.z),
                  gate(x, layer.o), reshape(layer.r->variable, {heads, 4, size, size}),
                  reshape(layer.b->variable, {4, heads, size}), initial, reset, state != nullptr);
  if (state != nullptr) {
    *state = {state->front(), cell.last.h.value(), cell.last.c.value(), cell.last.n.value(),
              cell.last.m.value()};
  }
  return head_norm(maybe_dropout(cell.h, options), layer.head_norm->variable, {}, kNorm);
}

Xlstm::Stream Xlstm::run_block(const Block& block, const Stream& in, const Tensor& reset,
                               const ForwardOptions& options, std::vector<Tensor>* state) const {
  const Normed before = in.delta.defined()
                            ? residual_norm(in.x, in.delta, block.norm->variable, kNorm)
                            : Normed{in.x, norm(in.x, block.norm->variable, kNorm)};
  const auto* slstm = std::get_if<SlstmLayer>(&block.layer);
  if (slstm == nullptr) {
    return {before.sum, maybe_dropout(mlstm_layer(block, before.out, reset, state), options)};
  }
  const Variable mixed = slstm_layer(block, before.out, reset, options, state);
  const Normed between = residual_norm(before.sum, mixed, slstm->ffn_norm->variable, kNorm);
  const std::int64_t inner = ffn_dim(config_);
  const std::vector<Variable> up = linear(between.out, slstm->ffn_up->variable, {}, {inner, inner});
  const Variable down = linear(gated(up[0], up[1], Activation::kGelu), slstm->ffn_down->variable);
  return {between.sum, maybe_dropout(down, options)};
}

Variable Xlstm::hidden(const Tensor& tokens, const Tensor& reset,
                       const ForwardOptions& options) const {
  if (options.state != nullptr) options.state->blocks.resize(blocks_.size());
  Stream stream{embedding(tokens, embedding_->variable), {}};
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    std::vector<Tensor>* state = options.state != nullptr ? &options.state->blocks[b] : nullptr;
    if (options.recompute && state == nullptr) {
      const auto run = [this, b, reset, options](const std::vector<Variable>& in) {
        const Stream out = run_block(blocks_[b], {in[0], in[1]}, reset, options, nullptr);
        return std::vector<Variable>{out.x, out.delta};
      };
      const std::vector<Variable> out = recompute(run, {stream.x, stream.delta});
      stream = {out[0], out[1]};
    } else {
      stream = run_block(blocks_[b], stream, reset, options, state);
    }
  }
  if (out_norm_ == nullptr) return add(stream.x, stream.delta);
  return residual_norm(stream.x, stream.delta, out_norm_->variable, kNorm).out;
}

Variable Xlstm::logits(const Variable& hidden) const { return linear(hidden, lm_head_->variable); }

double Xlstm::forward_flops_per_token(std::int64_t seq_len) const {
  const auto real = [](std::int64_t n) { return static_cast<double>(n); };
  const std::int64_t heads = config_.mlstm.num_heads;
  const double size = real(mlstm_inner_dim(config_)) / real(heads);
  const double chunk = real(std::min<std::int64_t>(kChunkSize, seq_len));
  const double cell = 4.0 * size * size + 4.0 * chunk * size + 2.0 * size * size / chunk;
  const std::int64_t mlstm_blocks =
      config_.num_blocks - static_cast<std::int64_t>(config_.slstm_at.size());
  return 2.0 * linear_parameters_ + real(mlstm_blocks) * real(heads) * cell;
}

}  // namespace carousel
