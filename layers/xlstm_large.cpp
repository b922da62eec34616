// Precision: the residual stream and all linears but the gates' in the compute dtype; gate linears,
// gates, states, norm statistics in float32 (float64 when the compute dtype is float64).
#include "layers/xlstm_large.h"

#include <cmath>

#include "core/autograd/recompute.h"
#include "core/ops/activation.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/gate_linear.h"
#include "core/ops/linear.h"
#include "core/ops/norm.h"

namespace carousel {

std::int64_t ffn_dim(const XlstmLargeConfig& config) {
  // Floating-point floor division on purpose: widths differ from exact arithmetic at the margin.
  const double multiple = static_cast<double>(config.ffn_round_up_to_multiple_of);
  const double x = static_cast<double>(config.embedding_dim) * config.ffn_proj_factor;
  return static_cast<std::int64_t>(std::floor((x + multiple - 1.0) / multiple) * multiple);
}

std::int64_t qk_dim(const XlstmLargeConfig& config) {
  return static_cast<std::int64_t>(static_cast<double>(config.embedding_dim) *
                                   config.qk_dim_factor);
}

std::int64_t v_dim(const XlstmLargeConfig& config) {
  return static_cast<std::int64_t>(static_cast<double>(config.embedding_dim) * config.v_dim_factor);
}

namespace {

void check_config(const XlstmLargeConfig& c) {
  const auto divides = [&](const char* what, std::int64_t width) {
    if (width < c.num_heads || width % c.num_heads != 0) {
      throw UsageError(
          "model: {} is {}, which {} heads do not divide; change model.num_heads or "
          "model.embedding_dim",
          what, width, c.num_heads);
    }
  };
  if (c.vocab_size < 1) throw UsageError("model.vocab_size is {}, must be positive", c.vocab_size);
  divides("embedding_dim·qk_dim_factor", qk_dim(c));
  divides("embedding_dim·v_dim_factor", v_dim(c));
}

}  // namespace

XlstmLarge::XlstmLarge(const XlstmLargeConfig& config) : config_(config) {
  check_config(config);
  const std::int64_t d = config.embedding_dim;
  embedding_ = &parameters_.add({.name = "backbone.embeddings.weight",
                                 .shape = {config.vocab_size, d},
                                 .init = init_small(d)});
  for (int i = 0; i < config.num_blocks; ++i) blocks_.push_back(add_block(i));
  if (config.add_out_norm) out_norm_ = add_norm("backbone.out_norm", d);
  lm_head_.weight = &parameters_.add({.name = "lm_head.weight",
                                      .shape = {config.vocab_size, d},
                                      .init = init_small(d),
                                      .decay = true});
}

XlstmLarge::Linear XlstmLarge::add_linear(const std::string& name, std::int64_t out,
                                          std::int64_t in, Init init) {
  Linear l;
  l.weight = &parameters_.add(
      {.name = name + ".weight", .shape = {out, in}, .init = std::move(init), .decay = true});
  if (config_.use_bias) {
    l.bias = &parameters_.add(
        {.name = name + ".bias", .shape = {out}, .init = init_constant(0), .keep_float32 = true});
  }
  return l;
}

XlstmLarge::Linear XlstmLarge::add_gate(const std::string& name, Init bias) {
  Linear l;
  l.weight = &parameters_.add({.name = name + ".weight",
                               .shape = {config_.num_heads, config_.embedding_dim},
                               .init = init_constant(0),
                               .decay = true,
                               .keep_float32 = true});
  l.bias = &parameters_.add({.name = name + ".bias",
                             .shape = {config_.num_heads},
                             .init = std::move(bias),
                             .keep_float32 = true});
  return l;
}

Parameter* XlstmLarge::add_norm(const std::string& name, std::int64_t dim) {
  return &parameters_.add(
      {.name = name + ".weight", .shape = {dim}, .init = init_constant(1), .keep_float32 = true});
}

XlstmLarge::Block XlstmLarge::add_block(int index) {
  const std::string prefix = fmt::format("backbone.blocks.{}.", index);
  const std::string cell = prefix + "mlstm_layer.";
  const std::int64_t d = config_.embedding_dim;
  const std::int64_t qk = qk_dim(config_);
  const std::int64_t dv = v_dim(config_);
  const std::int64_t inner = ffn_dim(config_);
  Block b{};
  b.norm_mlstm = add_norm(prefix + "norm_mlstm", d);
  b.q = add_linear(cell + "q", qk, d, init_small(d));
  b.k = add_linear(cell + "k", qk, d, init_small(d));
  b.v = add_linear(cell + "v", dv, d, init_small(d));
  b.o_gate = add_linear(cell + "ogate_preact", dv, d, init_constant(0));
  b.i_gate = add_gate(cell + "igate_preact", init_constant(-10));
  b.f_gate = add_gate(cell + "fgate_preact", init_linspace(3, 6, config_.num_heads));
  b.head_norm = add_norm(cell + "multihead_norm", dv);
  b.out_proj = add_linear(cell + "out_proj", d, dv, init_wang(d, config_.num_blocks));
  b.norm_ffn = add_norm(prefix + "norm_ffn", d);
  b.up_gate = add_linear(prefix + "ffn.proj_up_gate", inner, d, init_small(d));
  b.up = add_linear(prefix + "ffn.proj_up", inner, d, init_small(d));
  b.down = add_linear(prefix + "ffn.proj_down", d, inner, init_wang(d, config_.num_blocks));
  return b;
}

Variable XlstmLarge::Linear::operator()(const Variable& x) const {
  return linear(x, weight->variable, bias != nullptr ? bias->variable : Variable());
}

Variable XlstmLarge::maybe_dropout(const Variable& x, const ForwardOptions& options) const {
  return options.training ? apply_dropout(x, config_.dropout) : x;
}

Variable XlstmLarge::mlstm_layer(const Block& block, const Variable& x, const Tensor& reset,
                                 std::vector<Tensor>* state) const {
  const std::int64_t batch = x.dim(0);
  const std::int64_t seq = x.dim(1);
  const std::int64_t heads = config_.num_heads;
  const auto split_heads = [&](const Variable& y) {
    return reshape(y, {batch, seq, heads, y.dim(-1) / heads});
  };
  const auto capped = [&](const Variable& gate) {
    return config_.gate_soft_cap > 0 ? soft_cap(gate, config_.gate_soft_cap) : gate;
  };
  const auto [i_raw, f_raw] =
      gate_linear({x}, {block.i_gate.weight->variable, block.f_gate.weight->variable},
                  {block.i_gate.bias->variable, block.f_gate.bias->variable});
  const Variable i = capped(i_raw);
  const Variable f = capped(f_raw);

  mlstm::State initial;
  if (state != nullptr && !state->empty()) {
    initial = {Variable((*state)[0]), Variable((*state)[1]), Variable((*state)[2])};
  }
  const mlstm::CellOptions cell_options{
      .form = seq == 1 ? mlstm::Form::kRecurrent : mlstm::Form::kChunkwise,
      .chunk_size = config_.chunk_size,
      .eps = config_.eps,
      .return_last_state = state != nullptr};
  const mlstm::CellResult result =
      mlstm::cell(split_heads(block.q(x)), split_heads(block.k(x)), split_heads(block.v(x)), i, f,
                  initial, reset, cell_options);
  if (state != nullptr) {
    *state = {result.last.c.value(), result.last.n.value(), result.last.m.value()};
  }
  const Variable normed = head_norm(result.h, block.head_norm->variable, block.o_gate(x),
                                    {.kind = NormKind::kLayer, .eps = config_.norm_eps});
  return block.out_proj(normed);
}

XlstmLarge::Stream XlstmLarge::run_block(const Block& block, const Stream& in, const Tensor& reset,
                                         const ForwardOptions& options,
                                         std::vector<Tensor>* state) const {
  const NormOptions rms{.kind = NormKind::kRms, .eps = config_.norm_eps};
  const auto add_and_norm = [&](const Variable& x, const Variable& delta, const Parameter* weight) {
    if (delta.defined()) return residual_norm(x, delta, weight->variable, rms);
    return Normed{x, norm(x, weight->variable, rms)};
  };
  const Normed before = add_and_norm(in.x, in.delta, block.norm_mlstm);
  const Variable mixed = maybe_dropout(mlstm_layer(block, before.out, reset, state), options);
  const Normed between = add_and_norm(before.sum, mixed, block.norm_ffn);
  const Variable inner =
      gated(block.up_gate(between.out), block.up(between.out), Activation::kSilu);
  return {between.sum, maybe_dropout(block.down(inner), options)};
}

Variable XlstmLarge::hidden(const Tensor& tokens, const Tensor& reset,
                            const ForwardOptions& options) const {
  if (options.state != nullptr) options.state->blocks.resize(blocks_.size());
  Stream stream{maybe_dropout(embedding(tokens, embedding_->variable), options), {}};
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
  return residual_norm(stream.x, stream.delta, out_norm_->variable,
                       {.kind = NormKind::kRms, .eps = config_.norm_eps})
      .out;
}

Variable XlstmLarge::logits(const Variable& hidden) const { return lm_head_(hidden); }

double XlstmLarge::forward_flops_per_token(std::int64_t seq_len) const {
  const auto real = [](std::int64_t n) { return static_cast<double>(n); };
  double linear_parameters = 0.0;
  for (const Parameter& p : parameters_.all()) {
    if (p.spec.shape.rank() == 2 && &p != embedding_) {
      linear_parameters += real(p.spec.shape.numel());
    }
  }
  const double dqk = real(qk_dim(config_)) / real(config_.num_heads);
  const double dv = real(v_dim(config_)) / real(config_.num_heads);
  const double chunk = real(std::min<std::int64_t>(config_.chunk_size, seq_len));
  const double cell = 4.0 * dqk * dv + 2.0 * chunk * (dqk + dv) + 2.0 * dqk * dv / chunk;
  return 2.0 * linear_parameters + real(config_.num_blocks) * real(config_.num_heads) * cell;
}

}  // namespace carousel
