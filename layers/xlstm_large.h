// Family A, `xlstm_large`: the architecture of xLSTM-7B (mLSTM blocks with pre-norm and a gated
// feed-forward). Source: Beck et al. 2025 (arXiv:2503.13427) and its published checkpoints, whose
// parameter names and shapes are kept.
#pragma once

#include "layers/language_model.h"
#include "layers/mlstm/cell.h"
#include "layers/xlstm_large_config.h"

namespace carousel {

/// Inner width of the feed-forward under the PyTorch implementation's rounding rule.
std::int64_t ffn_dim(const XlstmLargeConfig& config);
/// Total query/key width over all heads, and total value width.
std::int64_t qk_dim(const XlstmLargeConfig& config);
std::int64_t v_dim(const XlstmLargeConfig& config);

class XlstmLarge final : public LanguageModel {
 public:
  /// Declares the parameters. Throws UsageError where the configuration contradicts itself.
  explicit XlstmLarge(const XlstmLargeConfig& config);

  Variable hidden(const Tensor& tokens, const Tensor& reset,
                  const ForwardOptions& options) const override;
  Variable logits(const Variable& hidden) const override;
  double logit_cap() const override { return config_.output_logit_soft_cap; }
  std::int64_t vocab_size() const override { return config_.vocab_size; }
  double forward_flops_per_token(std::int64_t seq_len) const override;

  const XlstmLargeConfig& config() const { return config_; }

 private:
  struct Linear {
    Parameter* weight = nullptr;
    Parameter* bias = nullptr;
    Variable operator()(const Variable& x) const;
  };
  struct Block {
    Parameter* norm_mlstm;
    Linear q, k, v, i_gate, f_gate, o_gate, out_proj;
    Parameter* head_norm;
    Parameter* norm_ffn;
    Linear up_gate, up, down;
  };
  /// The residual stream, its last summand not yet added: the next norm adds it.
  struct Stream {
    Variable x, delta;
  };

  Linear add_linear(const std::string& name, std::int64_t out, std::int64_t in, Init init);
  Linear add_gate(const std::string& name, Init bias);
  Parameter* add_norm(const std::string& name, std::int64_t dim);
  Block add_block(int index);

  Stream run_block(const Block& block, const Stream& in, const Tensor& reset,
                   const ForwardOptions& options, std::vector<Tensor>* state) const;
  Variable mlstm_layer(const Block& block, const Variable& x, const Tensor& reset,
                       std::vector<Tensor>* state) const;
  Variable maybe_dropout(const Variable& x, const ForwardOptions& options) const;

  XlstmLargeConfig config_;
  Parameter* embedding_;
  std::vector<Block> blocks_;
  Parameter* out_norm_ = nullptr;
  Linear lm_head_;
};

}  // namespace carousel
