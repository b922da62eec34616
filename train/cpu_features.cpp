#include "train/cpu_features.h"

#include <cstring>

namespace carousel {

#ifdef __x86_64__

std::array<CpuFeature, 8> cpu_features() {
  const bool v4 = std::strcmp(CAROUSEL_CPU_ARCH, "x86-64-v4") == 0;
  const bool v3 = v4 || std::strcmp(CAROUSEL_CPU_ARCH, "x86-64-v3") == 0;
  __builtin_cpu_init();
  return {{{"AVX2", v3, __builtin_cpu_supports("avx2") != 0},
           {"FMA", v3, __builtin_cpu_supports("fma") != 0},
           {"BMI2", v3, __builtin_cpu_supports("bmi2") != 0},
           {"AVX512F", v4, __builtin_cpu_supports("avx512f") != 0},
           {"AVX512BW", v4, __builtin_cpu_supports("avx512bw") != 0},
           {"AVX512DQ", v4, __builtin_cpu_supports("avx512dq") != 0},
           {"AVX512VL", v4, __builtin_cpu_supports("avx512vl") != 0},
           {"AVX512_BF16", false, __builtin_cpu_supports("avx512bf16") != 0}}};
}

#else

std::array<CpuFeature, 0> cpu_features() { return {}; }

#endif

}  // namespace carousel
