// A run of a few tiny steps, and what it wrote.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/temp_dir.h"
#include "tests/train/checkpoint/support.h"
#include "train/config/config.h"
#include "train/run_directory.h"

namespace carousel::testing {

// A run of a few tiny steps on a text of its own.
class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() {
    std::string text;
    for (int i = 0; i < 200; ++i) text += fmt::format("line {} of a small text.\n", i * i);
    config_.name = "tiny";
    config_.seed = 3;
    config_.steps = 8;
    config_.output_dir = dir_ / "run";
    config_.device = DeviceChoice::kUseCpu;
    config_.model.xlstm_large.embedding_dim = 32;
    config_.model.xlstm_large.num_heads = 2;
    config_.model.xlstm_large.num_blocks = 1;
    config_.model.xlstm_large.dropout = 0.1;
    config_.data.train = {dir_.write("text.txt", text)};
    config_.data.val.fraction = 0.1;
    config_.data.tokenizer = "char";
    config_.data.seq_len = 16;
    config_.data.batch_size = 4;
    config_.checkpoint.every = 2;
    config_.checkpoint.keep = 3;
    config_.eval.batches = 2;
  }

  std::filesystem::path run_path() const { return config_.output_dir; }
  std::filesystem::path checkpoint(int step) const {
    return run_path() / "checkpoints" / fmt::format("step-{:08}", step);
  }
  /// All files of all checkpoints, by their path below the run directory.
  std::map<std::string, std::string> checkpoint_files() const {
    std::map<std::string, std::string> files;
    for (const std::string& step : entries(run_path() / "checkpoints")) {
      for (const std::string& name : entries(run_path() / "checkpoints" / step)) {
        files[step + "/" + name] = read_file(run_path() / "checkpoints" / step / name);
      }
    }
    return files;
  }
  /// Of all steps and of the last evaluation.
  std::vector<double> losses() const {
    std::vector<double> all;
    for (const auto& row : metrics()) {
      if (!row.contains("checkpoint_stall_ms")) {
        all.push_back(row.contains("loss") ? row.at("loss") : row.at("val_loss"));
      }
    }
    return all;
  }
  /// The steps with a record that has `key`.
  std::vector<int> steps_with(const std::string& key) const {
    std::vector<int> steps;
    for (const auto& row : metrics()) {
      if (row.contains(key)) steps.push_back(row.at("step"));
    }
    return steps;
  }
  std::string report() const { return read_file(run_path() / "report.html"); }
  /// The validation loss at a step.
  double evaluation(int step) const {
    for (const auto& row : metrics()) {
      if (row.at("step") == step && row.contains("val_loss")) return row.at("val_loss");
    }
    throw std::runtime_error("no such evaluation");
  }
  std::vector<float> final_weights() {
    return load_trained_model(run_path(), DeviceChoice::kUseCpu)
        .model->parameters()
        .master()
        .to_vector<float>();
  }
  std::vector<nlohmann::json> metrics() const {
    std::ifstream in(run_path() / "metrics.jsonl");
    std::vector<nlohmann::json> rows;
    for (std::string line; std::getline(in, line);) rows.push_back(nlohmann::json::parse(line));
    return rows;
  }

  TempDir dir_;
  Config config_;
};

}  // namespace carousel::testing
