// Runs tests with each of the chunkwise form's kernels that the GPU has: on Hopper those of other
// GPUs, too.
#pragma once

#include <gtest/gtest.h>

#include <iterator>
#include <string>
#include <vector>

#include "layers/mlstm/cuda/choice.h"
#include "tests/layers/mlstm/cell_case.h"

namespace carousel::testing {

class EachKernels : public ::testing::TestWithParam<mlstm::cuda::Kernels> {
 protected:
  void SetUp() override { mlstm::cuda::most_special = GetParam(); }
  void TearDown() override { mlstm::cuda::most_special = mlstm::cuda::Kernels::kHopper; }

  /// The forms that the choice changes, and once the others.
  static std::vector<mlstm::Form> forms() {
    using mlstm::Form;
    if (GetParam() != mlstm::cuda::Kernels::kHopper) return {Form::kChunkwise};
    return {std::begin(kForms), std::end(kForms)};
  }
};

inline const auto kAllKernels = ::testing::Values(
    mlstm::cuda::Kernels::kHopper, mlstm::cuda::Kernels::kPipelined, mlstm::cuda::Kernels::kTiled);

inline std::string name_of_kernels(const ::testing::TestParamInfo<mlstm::cuda::Kernels>& info) {
  constexpr const char* kNames[] = {"Tiled", "Pipelined", "Hopper"};
  return kNames[static_cast<int>(info.param)];
}

}  // namespace carousel::testing
