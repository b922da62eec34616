#include <gtest/gtest.h>

#include <filesystem>

#include "core/tensor/safetensors.h"
#include "tests/support/golden.h"
#include "tests/support/program.h"

namespace carousel {
namespace {

using testing::run_program;
using testing::TempDir;

TEST(InterchangeCommandsGolden, AModelGoesInAndOutAgain) {
  const TempDir dir;
  const std::string source = testing::golden_path("hf_tiny");
  const auto imported = run_program("import " + source + " " + (dir / "run"));
  ASSERT_EQ(imported.code, 0) << imported.err;
  EXPECT_NE(imported.err.find("imported "), std::string::npos) << imported.err;

  const auto exported = run_program("export " + (dir / "run") + " " + (dir / "out") +
                                    " --dtype bf16 --weight-mode fused --naming nxai"
                                    " --shard-gb 0.0001");
  ASSERT_EQ(exported.code, 0) << exported.err;
  EXPECT_TRUE(std::filesystem::exists(dir / "out/model.safetensors.index.json"));

  // The exported form comes back in, and a fresh export is the original but for the rounding.
  ASSERT_EQ(run_program("import " + (dir / "out") + " " + (dir / "run2")).code, 0);
  ASSERT_EQ(run_program("export " + (dir / "run2") + " " + (dir / "out2")).code, 0);
  const SafetensorsFile original(source + "/model.safetensors");
  const SafetensorsFile again(dir / "out2/model.safetensors");
  for (const std::string& name : original.names()) {
    const auto want = original.load_as(name, DType::kBF16).to_vector<bfloat16>();
    const auto got = again.load(name).to_vector<float>();
    ASSERT_EQ(got.size(), want.size()) << name;
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i], static_cast<float>(want[i])) << name;
    }
  }
}

TEST(InterchangeCommands, FailuresHaveTheirExitCodes) {
  const TempDir dir;
  const auto no_model = run_program("import " + dir.path() + " " + (dir / "run"));
  EXPECT_EQ(no_model.code, 4) << no_model.err;
  EXPECT_NE(no_model.err.find("neither model.safetensors"), std::string::npos) << no_model.err;
  const auto no_run = run_program("export " + (dir / "none") + " " + (dir / "out"));
  EXPECT_EQ(no_run.code, 4) << no_run.err;
  std::filesystem::create_directories(dir / "run/checkpoints/step-00000002");
  const auto no_manifest =
      run_program("export " + (dir / "run/checkpoints/step-00000002") + " " + (dir / "out"));
  EXPECT_EQ(no_manifest.code, 4) << no_manifest.err;
  EXPECT_NE(no_manifest.err.find("manifest.json': No such file"), std::string::npos)
      << no_manifest.err;
  EXPECT_EQ(run_program("export " + (dir / "none") + " " + (dir / "out") + " --dtype f8").code, 2);
  EXPECT_EQ(run_program("import " + dir.path()).code, 2);
}

}  // namespace
}  // namespace carousel
