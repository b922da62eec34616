// Words of the safetensors format that its reader and writer share.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "core/tensor/dtype.h"

namespace carousel {

inline constexpr std::array<std::pair<std::string_view, DType>, 8> kSafetensorsDTypes{{
    {"F32", DType::kF32},
    {"BF16", DType::kBF16},
    {"F16", DType::kF16},
    {"F64", DType::kF64},
    {"I32", DType::kI32},
    {"I64", DType::kI64},
    {"U16", DType::kU16},
    {"U8", DType::kU8},
}};

constexpr std::optional<DType> dtype_from_safetensors(std::string_view name) {
  for (const auto& [text, dtype] : kSafetensorsDTypes) {
    if (text == name) return dtype;
  }
  return std::nullopt;
}

constexpr std::string_view safetensors_name_of(DType t) {
  for (const auto& [text, dtype] : kSafetensorsDTypes) {
    if (dtype == t) return text;
  }
  return "?";
}

/// Neither empty, nor with control characters, nor the key that the format keeps for metadata.
inline bool is_tensor_name(std::string_view name) {
  return !name.empty() && name != "__metadata__" &&
         std::ranges::all_of(name, [](unsigned char c) { return c >= 0x20 && c != 0x7f; });
}

}  // namespace carousel
