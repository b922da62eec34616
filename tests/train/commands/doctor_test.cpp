#include <gtest/gtest.h>

#include "core/kernels/register.h"
#include "tests/support/program.h"
#include "train/environment.h"

namespace carousel {
namespace {

TEST(DoctorCommand, NamesWhatWorksHere) {
  const testing::Outcome outcome = testing::run_program("doctor");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  const std::string lines = "\n" + outcome.out;
  for (const std::string& line :
       {"version    " + version_text(), std::string("build      "), "cpu        " + cpu_name(),
        "simd       " + simd_text(), std::string("threads    1 (of "), std::string("blas       "),
        std::string("sgemm      "), std::string("memory     "), std::string("disk       "),
        "cuda       " + cuda_status(), std::string("libraries  fmt ")}) {
    EXPECT_NE(lines.find("\n" + line), std::string::npos) << line << "\nis not in\n" << lines;
  }
  EXPECT_NE(lines.find(" GFLOP/s in float32"), std::string::npos);
}

}  // namespace
}  // namespace carousel
