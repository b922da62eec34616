#include "layers/parameters.h"

#include <gtest/gtest.h>

#include "core/ops/elementwise.h"
#include "core/tensor/allocator.h"
#include "layers/xlstm_large.h"
#include "tests/support/models.h"

namespace carousel {
namespace {

XlstmLarge small_model() {
  return XlstmLarge({.embedding_dim = 128, .num_heads = 2, .num_blocks = 2, .vocab_size = 300});
}

std::size_t used(Role role) { return memory_stats(kCpu).used[static_cast<std::size_t>(role)]; }

TEST(ParameterSet, ForInferenceHoldsTheWeightsInUseAlone) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    XlstmLarge model = small_model();
    ParameterSet& parameters = model.parameters();
    drop_memory_cache(kCpu);  // whose blocks may be larger than what is asked for
    const std::size_t parameters_before = used(Role::kParameters);
    const std::size_t gradients_before = used(Role::kGradients);
    parameters.materialise_for_inference(kCpu, precision);
    EXPECT_EQ(used(Role::kGradients), gradients_before);
    EXPECT_FALSE(parameters.grad().defined());
    const auto all = static_cast<std::size_t>(parameters.arena_size());
    const std::size_t kept = all - static_cast<std::size_t>(parameters.replicated_begin());
    EXPECT_LT(kept, all / 10);
    const std::size_t weights = precision == DType::kF32 ? 4 * all : 2 * all + 4 * kept;
    EXPECT_NEAR(static_cast<double>(used(Role::kParameters) - parameters_before),
                static_cast<double>(weights), 2048);
  }
}

TEST(ParameterSet, ForInferenceGivesTheResultsOfTraining) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    const auto hidden = [&](bool inference) {
      XlstmLarge model = small_model();
      if (inference) {
        model.parameters().materialise_for_inference(kCpu, precision);
      } else {
        model.parameters().materialise(kCpu, precision);
      }
      model.parameters().initialise(3);
      const NoGrad no_grad;
      return to_dtype(model.hidden(testing::random_tokens({2, 9}, 300, 5), {}, {}), DType::kF32)
          .value()
          .to_vector<float>();
    };
    EXPECT_EQ(hidden(true), hidden(false));
  }
}

}  // namespace
}  // namespace carousel
