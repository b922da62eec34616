// Golden models: configuration and parameters from a golden file.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/ops/activation.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/elementwise.h"
#include "core/tensor/safetensors.h"
#include "layers/language_model.h"
#include "layers/xlstm_config.h"
#include "layers/xlstm_large_config.h"
#include "tests/support/random.h"

namespace carousel::testing {

inline XlstmLargeConfig golden_xlstm_large_config(const nlohmann::json& j) {
  XlstmLargeConfig c;
  c.embedding_dim = j.at("embedding_dim");
  c.num_heads = j.at("num_heads");
  c.num_blocks = j.at("num_blocks");
  c.vocab_size = j.at("vocab_size");
  c.norm_eps = j.value("norm_eps", c.norm_eps);
  c.gate_soft_cap = j.value("gate_soft_cap", c.gate_soft_cap);
  c.output_logit_soft_cap = j.value("output_logit_soft_cap", c.output_logit_soft_cap);
  c.ffn_proj_factor = j.value("ffn_proj_factor", c.ffn_proj_factor);
  c.ffn_round_up_to_multiple_of =
      j.value("ffn_round_up_to_multiple_of", c.ffn_round_up_to_multiple_of);
  c.qk_dim_factor = j.value("qk_dim_factor", c.qk_dim_factor);
  c.v_dim_factor = j.value("v_dim_factor", c.v_dim_factor);
  c.eps = j.value("eps", c.eps);
  c.chunk_size = j.value("chunk_size", c.chunk_size);
  return c;
}

inline XlstmConfig golden_xlstm_config(const nlohmann::json& j) {
  XlstmConfig c;
  c.vocab_size = j.at("vocab_size");
  c.embedding_dim = j.at("embedding_dim");
  c.num_blocks = j.at("num_blocks");
  c.context_length = j.at("context_length");
  c.slstm_at = j.at("slstm_at").get<std::vector<std::int64_t>>();
  c.mlstm.num_heads = j.at("mlstm").at("num_heads");
  c.mlstm.conv1d_kernel_size = j.at("mlstm").at("conv1d_kernel_size");
  c.mlstm.qkv_proj_blocksize = j.at("mlstm").at("qkv_proj_blocksize");
  c.mlstm.proj_factor = j.at("mlstm").at("proj_factor");
  c.slstm.num_heads = j.at("slstm").at("num_heads");
  c.slstm.conv1d_kernel_size = j.at("slstm").at("conv1d_kernel_size");
  c.feedforward.proj_factor = j.at("feedforward").at("proj_factor");
  c.feedforward.act_fn = j.at("feedforward").at("act_fn");
  return c;
}

/// (B, S+1) i32 or i64 token ids to inputs and targets (B, S) i32, shifted by one.
inline std::pair<Tensor, Tensor> split_tokens(const Tensor& ids) {
  std::vector<std::int64_t> all;
  if (ids.dtype() == DType::kI64) {
    all = ids.to_vector<std::int64_t>();
  } else {
    const auto narrow = ids.to_vector<std::int32_t>();
    all.assign(narrow.begin(), narrow.end());
  }
  const std::int64_t batch = ids.dim(0);
  const std::int64_t seq = ids.dim(1) - 1;
  std::vector<std::int32_t> in;
  std::vector<std::int32_t> target;
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t t = 0; t < seq; ++t) {
      const auto at = static_cast<std::size_t>(b * (seq + 1) + t);
      in.push_back(static_cast<std::int32_t>(all[at]));
      target.push_back(static_cast<std::int32_t>(all[at + 1]));
    }
  }
  return {Tensor::from<std::int32_t>(in, {batch, seq}),
          Tensor::from<std::int32_t>(target, {batch, seq})};
}

/// The name under which the NX-AI package keeps a parameter.
inline std::string nxai_name(const std::string& name) {
  return name == "backbone.embeddings.weight" ? "embedding.weight" : name;
}

/// Fills the masters from tensors named `prefix` + the package's name; every parameter must exist.
inline void load_golden_parameters(LanguageModel& model, const SafetensorsFile& file,
                                   const std::string& prefix) {
  for (const Parameter& p : model.parameters().all()) {
    const std::string name = prefix + nxai_name(p.spec.name);
    ASSERT_TRUE(file.contains(name)) << name;
    ASSERT_EQ(file.info(name).shape, p.spec.shape) << name;
    Tensor(p.master).copy_(file.load_as(name, p.master.dtype()));
  }
  model.parameters().refresh_compute();
}

/// What a model's results differ by from those that a golden file holds.
struct GoldenErrors {
  double logits = 0.0;         ///< relative
  double all_gradients = 0.0;  ///< relative, of all parameters as one vector
  double loss = 0.0;           ///< absolute, of the mean
  std::vector<std::pair<std::string, double>> gradients;  ///< relative, by parameter
};

/// Gives the model the file's parameters and runs it forward and backward on the file's tokens.
inline GoldenErrors golden_errors(LanguageModel& model, const SafetensorsFile& file,
                                  Device device = kCpu, DType precision = DType::kF32) {
  model.parameters().materialise(device, precision);
  load_golden_parameters(model, file, "param.");
  const auto [tokens, targets] = split_tokens(file.load("ids"));
  const std::int64_t rows = tokens.numel();
  const Variable hidden = model.hidden(tokens.to(device), {}, {});
  const Variable logits = model.logits(reshape(hidden, {rows, hidden.dim(-1)}));
  const double cap = model.logit_cap();
  GoldenErrors errors;
  errors.logits =
      relative_error((cap > 0 ? soft_cap(logits, cap) : logits).value(), file.load("logits"));
  const Variable loss = cross_entropy(logits, targets.reshape({rows}).to(device), cap).loss;
  const Variable mean = scaled(sum(loss), 1.0 / static_cast<double>(rows));
  errors.loss = std::abs(mean.value().item() - file.load("loss").item());
  backward(mean);
  std::vector<double> all_got;
  std::vector<double> all_want;
  for (const Parameter& p : model.parameters().all()) {
    const Tensor want = file.load("grad." + nxai_name(p.spec.name));
    errors.gradients.emplace_back(p.spec.name, relative_error(p.variable.grad(), want));
    for (const double x : to_doubles(p.variable.grad())) all_got.push_back(x);
    for (const double x : to_doubles(want)) all_want.push_back(x);
  }
  errors.all_gradients = relative_error(all_got, all_want);
  return errors;
}

inline void expect_golden(const GoldenErrors& errors, double logits, double loss,
                          double gradients) {
  EXPECT_LE(errors.logits, logits);
  EXPECT_LE(errors.loss, loss);
  for (const auto& [name, error] : errors.gradients) EXPECT_LE(error, gradients) << name;
}

}  // namespace carousel::testing
