#include "train/interchange/layout.h"

#include <algorithm>
#include <array>
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

}  // namespace

std::vector<StackedTensor> stack_parameters(const ParameterSet& parameters, Naming naming,
                                            WeightMode mode) {
  std::vector<StackedTensor> tensors;
  std::map<std::string, std::size_t> index;
  for (const Parameter& p : parameters.all()) {
    std::string name = place_of(p.spec.name, mode).tensor;
    if (naming == Naming::kNxai && name == kHfEmbedding) name = kNxaiEmbedding;
    const auto [found, is_new] = index.emplace(name, tensors.size());
    if (is_new) tensors.push_back({.name = std::move(name)});
    tensors[found->second].parts.push_back(&p);
  }
  for (StackedTensor& t : tensors) {
    std::ranges::sort(t.parts, {},
                      [&](const Parameter* p) { return place_of(p->spec.name, mode).part; });
    t.shape = stacked_shape(t.parts);
  }
  return tensors;
}

Naming detect_naming(std::span<const std::string> names) {
  return std::ranges::find(names, kNxaiEmbedding) != names.end() ? Naming::kNxai : Naming::kHf;
}

WeightMode detect_weight_mode(std::span<const std::string> names) {
  const auto is_fused = [](const std::string& name) {
    return std::ranges::any_of(kFusions, [&](const Fusion& fusion) {
      return name.find(fmt::format(".{}.{}.", fusion.parent, fusion.fused)) != std::string::npos;
    });
  };
  return std::ranges::any_of(names, is_fused) ? WeightMode::kFused : WeightMode::kSingle;
}

}  // namespace carousel
