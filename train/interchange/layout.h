// How the parameters of family A lie in the tensors of published checkpoints.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "layers/parameters.h"
#include "train/interchange/hf_config.h"

namespace carousel {

/// transformers calls the embedding backbone.embeddings.weight, as Carousel does; the NX-AI package
/// calls it embedding.weight.
enum class Naming { kHf, kNxai };

/// One tensor of a published checkpoint: the parameters stacked along its first dimension.
struct StackedTensor {
  std::string name;
  Shape shape;
  std::vector<const Parameter*> parts;  ///< in order of rows; only one unless fused
};

/// All tensors, in the order of their first parameter. The parameters must outlive the result.
std::vector<StackedTensor> stack_parameters(const ParameterSet& parameters, Naming naming,
                                            WeightMode mode);

/// What the names in a checkpoint tell about it.
Naming detect_naming(std::span<const std::string> names);
WeightMode detect_weight_mode(std::span<const std::string> names);

}  // namespace carousel
