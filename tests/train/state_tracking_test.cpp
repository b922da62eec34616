// The first xLSTM paper's experiment on state tracking, shortened to seconds: a recurrence with
// memory mixing learns parity on short strings and keeps to it on long ones; one without cannot.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/program.h"

namespace carousel {
namespace {

using testing::TempDir;

// Validation accuracy of configs/parity_short.yaml through the program itself.
double accuracy(const std::string& overrides) {
  const TempDir dir;
  const std::string run = dir / "run";
  const auto trained = testing::run_program(
      "train " CAROUSEL_CONFIGS "/parity_short.yaml device=cpu output_dir=" + run + " " +
      overrides);
  EXPECT_EQ(trained.code, 0) << trained.err;
  const auto evaluated = testing::run_program("eval " + run + " --json --device cpu --batches 8");
  EXPECT_EQ(evaluated.code, 0) << evaluated.err;
  return nlohmann::json::parse(evaluated.out).at("accuracy");
}

TEST(StateTracking, AnSlstmLearnsParityAndExtrapolatesToLongerStrings) {
  for (const char* seed : {"seed=1", "seed=2", "seed=3"}) EXPECT_GE(accuracy(seed), 0.9) << seed;
}

TEST(StateTracking, AnMlstmAloneDoesNot) {
  EXPECT_LE(accuracy("'model.slstm_at=[]'"), 0.65);
  EXPECT_LE(accuracy("'model.slstm_at=[]' model.num_blocks=2"), 0.65);
}

}  // namespace
}  // namespace carousel
