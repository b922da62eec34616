#include <gtest/gtest.h>

#include "tests/support/program.h"

namespace carousel {
namespace {

using testing::Outcome;
using testing::run_program;

void expect(const std::string& arguments, int code, const std::string& part) {
  const Outcome outcome = run_program(arguments);
  const std::string output = outcome.out + outcome.err;
  EXPECT_EQ(outcome.code, code) << output;
  EXPECT_NE(output.find(part), std::string::npos) << "'" << part << "' is not in: " << output;
}

TEST(RunCommand, TakesBothSpellings) {
  const std::string rest = " --master-port 1234 --dry-run train x.yaml --flag optim.lr=1";
  const std::string want = "WORLD_SIZE=4 LOCAL_WORLD_SIZE=2 GROUP_RANK=1";
  expect("run --nproc-per-node 2 --nnodes=2 --node-rank 1" + rest, 0, want);
  expect("run --nproc_per_node=2 --nnodes 2 --node_rank=1" + rest, 0, want);
}

TEST(RunCommand, NamesWhatIsWrong) {
  expect("run", 2, "name what to run");
  expect("run --nprocs 2 train x.yaml", 2, "unknown option '--nprocs'; see carousel run --help");
  expect("run trian x.yaml", 2, "'trian' is no command");
  expect("run run train x.yaml", 2, "'run' is no command");
  expect("run --nproc-per-node 0 train x.yaml", 2, "--nproc-per-node is '0'");
  expect("run --max-restarts -1 train x.yaml", 2, "max-restarts");
  expect("run --master-port 70000 train x.yaml", 2, "master-port");
}

TEST(RunCommandDist, RunsThisProgram) {
  const Outcome outcome = run_program("run --standalone --nproc-per-node 2 config --keys");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("[rank0]: "), std::string::npos);
  EXPECT_NE(outcome.out.find("[rank1]: "), std::string::npos);
}

TEST(RunCommandDist, AWorkersErrorIsTheLaunchers) {
  const Outcome outcome = run_program("run --standalone train /nowhere/x.yaml");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_NE(outcome.err.find("error: rank 0 (pid "), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("failed first, with exit code 2: /nowhere/x.yaml"), std::string::npos)
      << outcome.err;
}

}  // namespace
}  // namespace carousel
