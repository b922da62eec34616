#include "train/check.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"
#include "tests/support/program.h"

namespace carousel {
namespace {

using testing::Outcome;
using testing::run_program;
using testing::TempDir;

// A model of every kind of block, with dropout and document starts, on a corpus of its own.
class Check : public ::testing::Test {
 protected:
  Config config(ModelFamily family) const {
    const std::string path = family == ModelFamily::kXlstmLarge ? large() : small();
    return load_config(path, {});
  }
  std::string large() const {
    return dir_.write("large.yaml",
                      "name: large\nsteps: 1\n"
                      "model: {family: xlstm_large, embedding_dim: 32, num_heads: 2, "
                      "num_blocks: 2, dropout: 0.1}\n" +
                          data());
  }
  std::string small() const {
    return dir_.write("small.yaml",
                      "name: small\nsteps: 1\n"
                      "model: {family: xlstm, embedding_dim: 32, num_blocks: 3, slstm_at: [1], "
                      "mlstm: {num_heads: 2}, slstm: {num_heads: 2}}\n" +
                          data());
  }

 private:
  std::string data() const {
    std::string text;
    for (int i = 0; i < 40; ++i) text += "What is bred in the bone will come out in the flesh.\n";
    return "data: {train: " + dir_.write("corpus.txt", text) + ", seq_len: 24, batch_size: 3}\n";
  }
  TempDir dir_;
};

TEST_F(Check, BothFamiliesAgreeWithFloat64AndWithDifferences) {
  for (const ModelFamily family : {ModelFamily::kXlstmLarge, ModelFamily::kXlstm}) {
    const CheckResult result = check_model(config(family), kCpu);
    EXPECT_TRUE(result.ok()) << to_string(result);
    EXPECT_GT(result.activations.size(), 20U);
    EXPECT_GT(result.gradients.size(), 10U);
    EXPECT_EQ(result.differences.size(), 8U);
  }
}

TEST_F(Check, ABoundThatIsMissedIsAFailure) {
  const Config c = config(ModelFamily::kXlstmLarge);
  for (const CheckOptions& options :
       {CheckOptions{.activations = 1e-12}, CheckOptions{.gradients = 1e-12},
        CheckOptions{.differences = 1e-15}}) {
    const CheckResult result = check_model(c, kCpu, options);
    EXPECT_FALSE(result.ok());
    EXPECT_NE(to_string(result).find("FAIL"), std::string::npos);
    EXPECT_NE(to_string(result).find("DISAGREE"), std::string::npos);
  }
}

TEST_F(Check, TheCommandReportsAndExits) {
  const std::string path = small();
  const Outcome good = run_program("check " + path + " --device cpu");
  EXPECT_EQ(good.code, 0) << good.err;
  EXPECT_NE(good.out.find("all agree"), std::string::npos) << good.out;
  const Outcome bad = run_program("check " + path + " --device cpu --gradients 1e-12");
  EXPECT_EQ(bad.code, 70);
  EXPECT_NE(bad.out.find("FAIL"), std::string::npos) << bad.out;
  if (!has_backend(DeviceType::kCuda)) {
    const Outcome none = run_program("check " + path);
    EXPECT_EQ(none.code, 2);
    EXPECT_NE(none.err.find("device"), std::string::npos) << none.err;
  }
}

TEST_F(Check, CudaAgreesWithTheCpu) {
  CAROUSEL_REQUIRE_CUDA();
  for (const ModelFamily family : {ModelFamily::kXlstmLarge, ModelFamily::kXlstm}) {
    const CheckResult result = check_model(config(family), testing::kGpu);
    EXPECT_TRUE(result.ok()) << to_string(result);
  }
}

}  // namespace
}  // namespace carousel
