// Configuration of family B, xlstm; the names are those of its published configurations.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace carousel {

struct XlstmConfig {
  struct Mlstm {
    std::int64_t num_heads = 4;
    std::int64_t conv1d_kernel_size = 4;
    std::int64_t qkv_proj_blocksize = 4;  ///< block size of the block-diagonal q, k, v
    double proj_factor = 2.0;             ///< inner width over embedding_dim, then rounded up to 64
  };
  struct Slstm {
    std::int64_t num_heads = 4;
    std::int64_t conv1d_kernel_size = 4;
  };
  struct FeedForward {
    double proj_factor = 1.3;  ///< width over embedding_dim, then rounded up to 64
    std::string act_fn = "gelu";
  };

  std::int64_t num_blocks = 1;
  std::int64_t embedding_dim = 128;
  std::int64_t context_length = 256;
  std::vector<std::int64_t> slstm_at;  ///< indices of the sLSTM blocks; the others are mLSTM
  bool bias = false;
  double dropout = 0.0;
  bool add_post_blocks_norm = true;
  std::int64_t vocab_size = 50304;
  bool tie_weights = false;
  bool weight_decay_on_embedding = false;
  Mlstm mlstm;
  Slstm slstm;
  FeedForward feedforward;
};

}  // namespace carousel
