// How the parameters lie in the tensors of published checkpoints.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "layers/parameters.h"
#include "train/interchange/hf_config.h"
#include "train/interchange/xlstm_json.h"

namespace carousel {

/// transformers calls the embedding of family A backbone.embeddings.weight, as Carousel does; the
/// NX-AI package calls it embedding.weight.
enum class Naming { kHf, kNxai };

/// Naming and mode mean something for family A alone, the sLSTM's layout for family B.
struct Layout {
  Naming naming = Naming::kHf;
  WeightMode mode = WeightMode::kSingle;
  SlstmLayout slstm = SlstmLayout::kVanilla;
};

/// A parameter seen as (outer, rows, columns, inner) whose published tensor has rows and columns
/// swapped.
struct AxisSwap {
  std::int64_t outer, rows, columns, inner;
};

/// One tensor of a published checkpoint: the parameters stacked along its first dimension.
struct StackedTensor {
  std::string name;
  Shape shape;
  std::vector<const Parameter*> parts;  ///< in order of rows; only one unless fused
  std::optional<AxisSwap> swap;         ///< only where there is one part
};

/// All tensors, in the order of their first parameter. The parameters must outlive the result.
std::vector<StackedTensor> stack_parameters(const ParameterSet& parameters, const Layout& layout);

/// Family B's head where it shares the embedding's weights: the package stores them twice.
inline constexpr const char* kTiedHead = "lm_head.weight";
inline constexpr const char* kTiedEmbedding = "token_embedding.weight";

/// `t` (outer, rows, columns, inner), in any shape, with rows and columns swapped, as `shape`.
Tensor swap_axes(const Tensor& t, const AxisSwap& axes, const Shape& shape);
/// The swap that undoes it.
AxisSwap inverse(const AxisSwap& axes);

}  // namespace carousel
