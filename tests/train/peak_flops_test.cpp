#include "train/peak_flops.h"

#include <gtest/gtest.h>

namespace carousel {
namespace {

TEST(PeakFlops, KnowsTheFormsOfAChip) {
  EXPECT_EQ(peak_flops("NVIDIA H100 80GB HBM3", DType::kBF16), 989.4 * 1e12);
  EXPECT_EQ(peak_flops("NVIDIA H100 80GB HBM3", DType::kF32), 66.9 * 1e12);
  EXPECT_EQ(peak_flops("NVIDIA H100 80GB HBM3", DType::kF32, true), 494.7 * 1e12);
  EXPECT_EQ(peak_flops("NVIDIA H100 PCIe", DType::kBF16), 756 * 1e12);
  EXPECT_EQ(peak_flops("NVIDIA H100 NVL", DType::kBF16), 835 * 1e12);
  EXPECT_EQ(peak_flops("NVIDIA H200", DType::kBF16), 989.4 * 1e12);
  EXPECT_EQ(peak_flops("NVIDIA A100-SXM4-40GB", DType::kBF16), 312 * 1e12);
  EXPECT_EQ(peak_flops("NVIDIA A100 80GB PCIe", DType::kF32), 19.5 * 1e12);
  EXPECT_EQ(peak_flops("NVIDIA GeForce RTX 4090", DType::kBF16), 165.2 * 1e12);
  EXPECT_EQ(peak_flops("NVIDIA L40S", DType::kBF16), 362 * 1e12);
}

TEST(PeakFlops, GuessesNothing) {
  EXPECT_EQ(peak_flops("", DType::kBF16), std::nullopt);
  EXPECT_EQ(peak_flops("NVIDIA H1000", DType::kBF16), std::nullopt);
  EXPECT_EQ(peak_flops("NVIDIA GeForce RTX 4090 D", DType::kBF16), std::nullopt);
  EXPECT_EQ(peak_flops("NVIDIA GeForce RTX 4090 Laptop GPU", DType::kBF16), std::nullopt);
  EXPECT_EQ(peak_flops("NVIDIA A100X", DType::kBF16), std::nullopt);
  EXPECT_EQ(peak_flops("NVIDIA H100 80GB HBM3", DType::kF64), std::nullopt);
}

}  // namespace
}  // namespace carousel
