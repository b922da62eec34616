#include "train/interchange/layout.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <string_view>

namespace carousel {
namespace {

constexpr std::string_view kHfEmbedding = "backbone.embeddings.weight";
constexpr std::string_view kNxaiEmbedding = "embedding.weight";

struct Fusion {
  std::string_view parent;
  std::string_view fused;
  std::array<std::string_view, 4> parts;  // in order of rows
};

constexpr std::array<Fusion, 3> kFusions{{
    {"mlstm_layer", "qkv_opreact", {"q", "k", "v", "ogate_preact"}},
    {"mlstm_layer", "ifgate_preact", {"igate_preact", "fgate_preact"}},
    {"ffn", "proj_up_gate_z", {"proj_up_gate", "proj_up"}},
}};

// The fused tensor of a parameter, and which part of it the parameter is; the parameter itself
// where nothing is fused.
struct Place {
  std::string tensor;
  std::size_t part = 0;
};

Place place_of(const std::string& parameter, WeightMode mode) {
  if (mode == WeightMode::kSingle) return {parameter};
  for (const Fusion& fusion : kFusions) {
    for (std::size_t i = 0; i < fusion.parts.size() && !fusion.parts[i].empty(); ++i) {
      const std::string own = fmt::format(".{}.{}.", fusion.parent, fusion.parts[i]);
      if (const std::size_t at = parameter.find(own); at != std::string::npos) {
        std::string tensor = parameter;
        tensor.replace(at, own.size(), fmt::format(".{}.{}.", fusion.parent, fusion.fused));
        return {std::move(tensor), i};
      }
    }
  }
  return {parameter};
}

Shape stacked_shape(const std::vector<const Parameter*>& parts) {
  const auto first = parts.front()->spec.shape.dims();
  std::vector<std::int64_t> dims(first.begin(), first.end());
  for (std::size_t i = 1; i < parts.size(); ++i) dims[0] += parts[i]->spec.shape[0];
  return Shape(dims);
}

constexpr std::string_view kKernel = "slstm_cell._recurrent_kernel_";
constexpr std::string_view kBias = "slstm_cell._bias_";

// Turns the recurrent weights of an sLSTM block from Carousel's layout into the CUDA backend's.
void arrange_for_cuda(StackedTensor& t, const ParameterSet& parameters) {
  if (t.name.ends_with(kKernel)) {
    t.swap = AxisSwap{t.shape[0], t.shape[1], t.shape[2], 1};
    t.shape = {t.shape[0], t.shape[2], t.shape[1]};
  } else if (t.name.ends_with(kBias)) {
    const std::string prefix = t.name.substr(0, t.name.size() - kBias.size());
    const std::int64_t heads = parameters.at(prefix + std::string(kKernel)).spec.shape[0];
    t.swap = AxisSwap{1, 4, heads, t.shape[0] / (4 * heads)};
  }
}

}  // namespace

std::vector<StackedTensor> stack_parameters(const ParameterSet& parameters, const Layout& layout) {
  std::vector<StackedTensor> tensors;
  std::map<std::string, std::size_t> index;
  for (const Parameter& p : parameters.all()) {
    std::string name = place_of(p.spec.name, layout.mode).tensor;
    if (layout.naming == Naming::kNxai && name == kHfEmbedding) name = kNxaiEmbedding;
    const auto [found, is_new] = index.emplace(name, tensors.size());
    if (is_new) tensors.push_back({.name = std::move(name)});
    tensors[found->second].parts.push_back(&p);
  }
  for (StackedTensor& t : tensors) {
    std::ranges::sort(t.parts, {},
                      [&](const Parameter* p) { return place_of(p->spec.name, layout.mode).part; });
    t.shape = stacked_shape(t.parts);
    if (layout.slstm == SlstmLayout::kCuda) arrange_for_cuda(t, parameters);
  }
  return tensors;
}

Tensor swap_axes(const Tensor& t, const AxisSwap& axes, const Shape& shape) {
  Tensor out = Tensor::empty(shape, t.dtype());
  CAROUSEL_CHECK(axes.outer * axes.rows * axes.columns * axes.inner == t.numel(),
                 "swap of a tensor {}", t.shape());
  const std::size_t size = size_of(t.dtype()) * static_cast<std::size_t>(axes.inner);
  const auto* from = static_cast<const std::byte*>(t.raw());
  auto* to = static_cast<std::byte*>(out.raw());
  for (std::int64_t o = 0; o < axes.outer; ++o) {
    for (std::int64_t c = 0; c < axes.columns; ++c) {
      for (std::int64_t r = 0; r < axes.rows; ++r, to += size) {
        const std::int64_t at = (o * axes.rows + r) * axes.columns + c;
        std::memcpy(to, from + static_cast<std::size_t>(at) * size, size);
      }
    }
  }
  return out;
}

AxisSwap inverse(const AxisSwap& axes) { return {axes.outer, axes.columns, axes.rows, axes.inner}; }

}  // namespace carousel
