#include "train/launcher/launch_environment.h"

#include <gtest/gtest.h>

#include <map>

#include "core/base/error.h"
#include "tests/support/errors.h"

namespace carousel {
namespace {

using testing::expect_error;
using Environment = std::map<std::string, std::string>;

LaunchEnvironment detect(const Environment& environment) {
  return detect_launch_environment([&](const char* name) {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

void refuse(const Environment& environment, std::initializer_list<std::string> parts) {
  expect_error<UsageError>([&] { detect(environment); }, parts);
}

Environment torchrun() {
  return {{"RANK", "5"},
          {"WORLD_SIZE", "8"},
          {"LOCAL_RANK", "1"},
          {"LOCAL_WORLD_SIZE", "4"},
          {"MASTER_ADDR", "10.0.0.1"},
          {"MASTER_PORT", "29501"},
          {"TORCHELASTIC_RESTART_COUNT", "2"},
          {"TORCHELASTIC_RUN_ID", "job"}};
}

Environment srun() {
  return {{"SLURM_STEP_ID", "0"},
          {"SLURM_PROCID", "3"},
          {"SLURM_LOCALID", "1"},
          {"SLURM_NODEID", "1"},
          {"SLURM_NTASKS", "7"},
          {"SLURM_TASKS_PER_NODE", "2(x3),1"},
          {"SLURM_NODELIST", "gpu[08-11]"},
          {"SLURM_JOB_ID", "31234567"}};
}

TEST(LaunchEnvironment, WithoutALauncherTheProcessIsAlone) {
  const LaunchEnvironment alone = detect({});
  EXPECT_EQ(alone.launcher, "none");
  EXPECT_EQ(alone.rank, 0);
  EXPECT_EQ(alone.world_size, 1);
  // Slurm's batch script, which carries its job's variables, is not a step of many tasks.
  EXPECT_EQ(detect({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}).world_size, 1);
}

TEST(LaunchEnvironment, ReadsTorchrun) {
  const LaunchEnvironment got = detect(torchrun());
  EXPECT_EQ(got.launcher, "torchrun");
  EXPECT_EQ(got.rank, 5);
  EXPECT_EQ(got.world_size, 8);
  EXPECT_EQ(got.local_rank, 1);
  EXPECT_EQ(got.local_world_size, 4);
  EXPECT_EQ(got.master_addr, "10.0.0.1");
  EXPECT_EQ(got.master_port, 29501);
  EXPECT_EQ(got.restart_count, 2);
  EXPECT_EQ(got.run_id, "job");
  Environment with_store = torchrun();
  with_store["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  const int port = detect(with_store).master_port;
  EXPECT_GE(port, 15000);
  EXPECT_LT(port, 30000);
  with_store["RANK"] = "0";
  EXPECT_EQ(detect(with_store).master_port, port);  // in all processes
  with_store["TORCHELASTIC_RUN_ID"] = "another";
  EXPECT_NE(detect(with_store).master_port, port);
}

TEST(LaunchEnvironment, ReadsOpenMpi) {
  const Environment one_host{{"OMPI_COMM_WORLD_RANK", "1"},
                             {"OMPI_COMM_WORLD_SIZE", "2"},
                             {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                             {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
  const LaunchEnvironment got = detect(one_host);
  EXPECT_EQ(got.launcher, "mpirun");
  EXPECT_EQ(got.rank, 1);
  EXPECT_EQ(got.local_rank, 1);
  EXPECT_EQ(got.master_addr, "127.0.0.1");
  EXPECT_EQ(got.master_port, 29500);

  Environment two_hosts = one_host;
  two_hosts["OMPI_COMM_WORLD_SIZE"] = "4";
  refuse(two_hosts, {"MASTER_ADDR is not set", "4 processes"});
  two_hosts["MASTER_ADDR"] = "head";
  EXPECT_EQ(detect(two_hosts).master_addr, "head");
}

TEST(LaunchEnvironment, ReadsMpich) {
  const LaunchEnvironment got = detect(
      {{"PMI_RANK", "1"}, {"PMI_SIZE", "4"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "4"}});
  EXPECT_EQ(got.launcher, "mpirun");
  EXPECT_EQ(got.rank, 1);
  EXPECT_EQ(got.world_size, 4);
  EXPECT_EQ(got.local_rank, 1);
}

TEST(LaunchEnvironment, ReadsSlurm) {
  const LaunchEnvironment got = detect(srun());
  EXPECT_EQ(got.launcher, "srun");
  EXPECT_EQ(got.rank, 3);
  EXPECT_EQ(got.world_size, 7);
  EXPECT_EQ(got.local_rank, 1);
  EXPECT_EQ(got.local_world_size, 2);
  EXPECT_EQ(got.master_addr, "gpu08");
  EXPECT_EQ(got.master_port, 15000 + 31234567 % 15000);
  EXPECT_EQ(got.run_id, "31234567");

  Environment last_node = srun();
  last_node["SLURM_NODEID"] = "3";
  last_node["SLURM_LOCALID"] = "0";
  EXPECT_EQ(detect(last_node).local_world_size, 1);
  // A step may have fewer tasks and nodes than its job.
  Environment step = srun();
  step["SLURM_STEP_NUM_TASKS"] = "4";
  step["SLURM_STEP_NODELIST"] = "gpu10,gpu11";
  EXPECT_EQ(detect(step).world_size, 4);
  EXPECT_EQ(detect(step).master_addr, "gpu10");
}

TEST(LaunchEnvironment, ReadsSlurmThatOffersPmi) {
  Environment environment = srun();
  environment["PMI_RANK"] = "3";
  environment["PMI_SIZE"] = "7";
  const LaunchEnvironment got = detect(environment);
  EXPECT_EQ(got.launcher, "srun");
  EXPECT_EQ(got.rank, 3);
  EXPECT_EQ(got.local_rank, 1);
  EXPECT_EQ(got.local_world_size, 2);
  EXPECT_EQ(got.master_addr, "gpu08");
}

TEST(LaunchEnvironment, TheInnermostLauncherCounts) {
  Environment both = srun();
  for (const auto& [name, value] : torchrun()) both[name] = value;
  EXPECT_EQ(detect(both).launcher, "torchrun");
  // Intel's mpirun starts one helper a host through srun; these start the ranks.
  Environment mpi = srun();
  mpi["PMI_RANK"] = "3";
  mpi["PMI_SIZE"] = "8";
  mpi["MPI_LOCALRANKID"] = "0";
  mpi["MASTER_ADDR"] = "head";
  EXPECT_EQ(detect(mpi).launcher, "mpirun");
  mpi.erase("MPI_LOCALRANKID");
  mpi["PMI_RANK"] = "5";
  EXPECT_EQ(detect(mpi).launcher, "mpirun");
}

TEST(LaunchEnvironment, NamesWhatIsMissingOrWrong) {
  refuse({{"WORLD_SIZE", "2"}}, {"WORLD_SIZE is set without RANK"});
  refuse({{"RANK", "0"}}, {"RANK is set without WORLD_SIZE"});
  refuse({{"OMPI_COMM_WORLD_RANK", "0"}}, {"is set without OMPI_COMM_WORLD_SIZE"});
  const auto with = [](const char* name, const char* value) {
    Environment environment = torchrun();
    environment[name] = value;
    return environment;
  };
  refuse(with("RANK", "8"), {"RANK is 8, but WORLD_SIZE is 8: ranks go from 0 to 7"});
  refuse(with("RANK", "-1"), {"RANK is '-1', must be a number from 0"});
  for (const char* value : {"", "x", "2x", " 2", "99999999999999999999"}) {
    refuse(with("WORLD_SIZE", value), {"WORLD_SIZE is '", "must be a number from 1"});
  }
  refuse(with("LOCAL_RANK", "4"), {"LOCAL_RANK is 4, but there are 4 processes on this host"});
  refuse(with("LOCAL_WORLD_SIZE", "9"), {"LOCAL_WORLD_SIZE is 9, more than WORLD_SIZE, 8"});
  refuse(with("MASTER_PORT", "65536"), {"MASTER_PORT is '65536'"});
  refuse(with("MASTER_ADDR", ""), {"MASTER_ADDR is empty"});
  refuse(with("TORCHELASTIC_RUN_ID", std::string(1200, 'x').c_str()),
         {"TORCHELASTIC_RUN_ID has 1200 bytes, 'xxx", "at most 200"});
  Environment list = srun();
  list["SLURM_NODELIST"] = "gpu[3-1]";
  refuse(list, {"not a Slurm host list"});
}

}  // namespace
}  // namespace carousel
