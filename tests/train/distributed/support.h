// A small run for tests that start the program in several processes.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "core/base/error.h"
#include "tests/support/temp_dir.h"

namespace carousel::testing {

class TinyRun : public ::testing::Test {
 protected:
  TinyRun() {
    std::string text;
    for (int i = 0; i < 300; ++i) text += fmt::format("line {} of a small text.\n", i * i);
    config_ =
        dir_.write("tiny.yaml", fmt::format("name: tiny\n"
                                            "steps: 50\n"
                                            "device: cpu\n"
                                            "model: {{family: xlstm_large, embedding_dim: 32, "
                                            "num_heads: 2, num_blocks: 2, chunk_size: 16}}\n"
                                            "data: {{train: '{}', val: 0.1, tokenizer: byte, "
                                            "seq_len: 16, batch_size: 8}}\n"
                                            "optim: {{lr: 3.0e-3}}\n"
                                            "schedule: {{decay_steps: 50}}\n"
                                            "eval: {{batches: 3}}\n",
                                            dir_.write("text.txt", text)));
  }

  /// The arguments that train into the run directory dir_ / run.
  std::string command(const std::string& run, const std::string& overrides) const {
    return fmt::format("train '{}' output_dir='{}' {}", config_, dir_ / run, overrides);
  }

  TempDir dir_;
  std::string config_;
};

}  // namespace carousel::testing
