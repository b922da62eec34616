// Configuration of family A, xlstm_large; the names are those of its published config.json.
#pragma once

#include <cstdint>

namespace carousel {

struct XlstmLargeConfig {
  std::int64_t embedding_dim = 4096;
  std::int64_t num_heads = 8;
  std::int64_t num_blocks = 32;
  std::int64_t vocab_size = 50304;
  double qk_dim_factor = 0.5;       ///< query/key width over embedding_dim
  double v_dim_factor = 1.0;        ///< value width over embedding_dim
  double ffn_proj_factor = 2.6667;  ///< feed-forward width over embedding_dim, then rounded up
  std::int64_t ffn_round_up_to_multiple_of = 64;
  double gate_soft_cap = 15.0;
  double output_logit_soft_cap = 30.0;
  double norm_eps = 1e-6;
  double eps = 1e-6;  ///< added to the cell's normaliser
  bool use_bias = false;
  bool add_out_norm = true;
  int chunk_size = 64;
  double dropout = 0.0;  ///< after the embedding and on both residual branches
};

}  // namespace carousel
