#include "train/cpu_features.h"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

namespace carousel {
namespace {

TEST(CpuFeatures, TheFirstThatIsRequiredAndAbsentIsNamed) {
  const std::vector<CpuFeature> old{
      {"AVX2", true, true}, {"AVX512F", false, false}, {"FMA", true, false}, {"BMI2", true, false}};
  EXPECT_STREQ(missing_feature(old), "FMA");
  const std::vector<CpuFeature> enough{{"AVX2", true, true}, {"AVX512F", false, false}};
  EXPECT_EQ(missing_feature(enough), nullptr);
}

TEST(CpuFeatures, ThisCpuRunsThisTest) { EXPECT_EQ(missing_feature(cpu_features()), nullptr); }

#ifdef __AVX2__
TEST(CpuFeatures, WhatTheCompilerUsesIsRequired) {
  for (const CpuFeature& feature : cpu_features()) {
    if (std::string_view(feature.name) == "AVX2") {
      EXPECT_TRUE(feature.required);
    }
  }
}
#endif

}  // namespace
}  // namespace carousel
