// Family B, `xlstm`: the architecture of the first xLSTM paper, mLSTM blocks and sLSTM blocks with
// a feed-forward behind them. Source: Beck et al. 2024 (arXiv:2405.04517), figures 10 and 11, and
// the models published with it, whose parameter names and shapes are kept.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "layers/language_model.h"
#include "layers/xlstm_config.h"

namespace carousel {

/// Inner width of the mLSTM layers, and of the feed-forward behind the sLSTM layers.
std::int64_t mlstm_inner_dim(const XlstmConfig& config);
std::int64_t ffn_dim(const XlstmConfig& config);

/// What contradicts itself in the configuration, or is not implemented; empty if it can be built.
std::vector<std::string> problems_of(const XlstmConfig& config);

class Xlstm final : public LanguageModel {
 public:
  /// Declares the parameters. Throws UsageError where the configuration contradicts itself.
  explicit Xlstm(const XlstmConfig& config);

  Variable hidden(const Tensor& tokens, const Tensor& reset,
                  const ForwardOptions& options) const override;
  Variable logits(const Variable& hidden) const override;
  double logit_cap() const override { return 0.0; }
  std::int64_t vocab_size() const override { return config_.vocab_size; }
  double forward_flops_per_token(std::int64_t seq_len) const override;

  const XlstmConfig& config() const { return config_; }

 private:
  struct MlstmLayer {
    Parameter *up, *down, *q, *k, *v;
    Parameter *i_weight, *i_bias, *f_weight, *f_bias;
    Parameter *head_norm, *skip;
    Parameter *up_bias, *down_bias, *q_bias, *k_bias, *v_bias;  // nullptr without config.bias
  };
  struct SlstmLayer {
    Parameter *i, *f, *z, *o;
    Parameter *r, *b;
    Parameter* head_norm;
    Parameter *ffn_norm, *ffn_up, *ffn_down;
  };
  struct Block {
    Parameter* norm;
    Parameter *conv_weight, *conv_bias;
    std::variant<MlstmLayer, SlstmLayer> layer;
  };
  /// The residual stream, its last summand not yet added: the next norm adds it.
  struct Stream {
    Variable x, delta;
  };

  Parameter* add_linear(const std::string& name, const Shape& shape, Init init,
                        bool keep_float32 = false);
  Parameter* add_vector(const std::string& name, std::int64_t size, Init init);
  void add_conv(Block& block, const std::string& name, std::int64_t channels, std::int64_t taps);
  MlstmLayer add_mlstm(const std::string& prefix);
  SlstmLayer add_slstm(const std::string& prefix, std::int64_t index);

  Stream run_block(const Block& block, const Stream& in, const Tensor& reset,
                   const ForwardOptions& options, std::vector<Tensor>* state) const;
  /// State: conv window, c, n, m.
  Variable mlstm_layer(const Block& block, const Variable& x, const Tensor& reset,
                       std::vector<Tensor>* state) const;
  /// State: conv window, h, c, n, m.
  Variable slstm_layer(const Block& block, const Variable& x, const Tensor& reset,
                       const ForwardOptions& options, std::vector<Tensor>* state) const;
  Variable maybe_dropout(const Variable& x, const ForwardOptions& options) const;

  XlstmConfig config_;
  double linear_parameters_ = 0.0;  // of linears, logits and recurrent products
  Parameter* embedding_;
  std::vector<Block> blocks_;
  Parameter* out_norm_ = nullptr;
  Parameter* lm_head_;
};

}  // namespace carousel
