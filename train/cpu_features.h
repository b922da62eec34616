// The instruction sets of this CPU, as far as the kernels care.
#pragma once

#include <array>

namespace carousel {

struct CpuFeature {
  const char* name;
  bool required;  ///< this program was compiled to use it
  bool present;
};

/// Safe to call before anything else: compiled for the oldest CPU of the architecture, whatever the
/// rest of the program needs. Empty on other architectures than x86.
#ifdef __x86_64__
std::array<CpuFeature, 8> cpu_features();
#else
std::array<CpuFeature, 0> cpu_features();
#endif

/// The first of `features` that is required and absent, or nullptr.
template <class Features>
const char* missing_feature(const Features& features) {
  for (const CpuFeature& feature : features) {
    if (feature.required && !feature.present) return feature.name;
  }
  return nullptr;
}

}  // namespace carousel
