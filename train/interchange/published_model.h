// A model directory of either family, read: its configuration, and its tensors as parameters.
#pragma once

#include <memory>
#include <vector>

#include "layers/language_model.h"
#include "train/config/config.h"
#include "train/interchange/layout.h"
#include "train/interchange/model_files.h"

namespace carousel {

/// A published model whose tensors are those that its configuration describes.
struct PublishedModel {
  ModelConfig config;
  std::unique_ptr<LanguageModel> model;  ///< parameters are declared, not materialised
  std::vector<StackedTensor> tensors;    ///< how the parameters lie in the files
};

/// Reads config.json and checks the tensors, whichever family, naming, weight mode and sLSTM layout
/// they have. The feed-forward width of family A is that of the tensors: implementations round it
/// differently. Throws CheckpointError; what is wrong with the tensors (missing, misshapen, not
/// floating, unexpected) it lists all at once, with shapes.
PublishedModel read_published_model(const ModelFiles& files);

/// All parameters as `dtype` in host memory, under their own names and in their order; each is read
/// when it is made, so that no more than one is in memory. `files` and `published` must outlive
/// the result.
std::vector<TensorSource> parameter_sources(const ModelFiles& files,
                                            const PublishedModel& published, DType dtype);

/// The text of config.json for `config`: transformers' form for family A, the NX-AI package's for
/// B.
std::string published_config(const ModelConfig& config, DType dtype = DType::kF32,
                             const Layout& layout = {});

}  // namespace carousel
