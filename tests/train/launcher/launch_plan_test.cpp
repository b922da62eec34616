#include "train/launcher/launch_plan.h"

#include <gtest/gtest.h>

#include <map>

#include "core/base/error.h"
#include "tests/support/errors.h"

namespace carousel {
namespace {

using testing::expect_error;

constexpr LaunchResources kMachine{.gpus = 4, .cores = 6};

void refuse(const LaunchOptions& options, std::initializer_list<std::string> parts,
            const LaunchResources& resources = kMachine) {
  expect_error<UsageError>([&] { make_launch_plan(options, resources); }, parts);
}

TEST(LaunchPlan, CountsWorkersAsTorchrunDoes) {
  const auto workers = [](const char* text, const LaunchResources& resources) {
    return make_launch_plan({.nproc_per_node = text}, resources).local_world_size;
  };
  EXPECT_EQ(make_launch_plan({}, kMachine).local_world_size, 1);
  EXPECT_EQ(workers("3", kMachine), 3);
  EXPECT_EQ(workers("gpu", kMachine), 4);
  EXPECT_EQ(workers("auto", kMachine), 4);
  EXPECT_EQ(workers("auto", {.gpus = 0, .cores = 6}), 6);
  EXPECT_EQ(workers("cpu", kMachine), 6);
  for (const char* text : {"", "0", "-1", "x", "2x", "4097", "99999999999"}) {
    refuse({.nproc_per_node = text}, {"--nproc-per-node is '" + std::string(text) + "'"});
  }
  refuse({.nproc_per_node = "gpu"}, {"sees no GPU"}, {.gpus = 0, .cores = 6});
}

TEST(LaunchPlan, SharesTheCoresOut) {
  const auto threads = [](const char* workers) {
    return make_launch_plan({.nproc_per_node = workers}, kMachine).threads_per_worker;
  };
  EXPECT_EQ(threads("1"), 6);
  EXPECT_EQ(threads("4"), 1);
  EXPECT_EQ(threads("16"), 1);
}

TEST(LaunchPlan, NodesAreFixed) {
  EXPECT_EQ(make_launch_plan({.nnodes = "2", .node_rank = 1}, kMachine).nodes, 2);
  EXPECT_EQ(make_launch_plan({.nnodes = "2:2"}, kMachine).nodes, 2);
  refuse({.nnodes = "1:4"}, {"number of nodes is fixed"});
  for (const char* text : {"0", "x", "2:", "2:2:2"}) refuse({.nnodes = text}, {"--nnodes is"});
  refuse({.nnodes = "2", .node_rank = 2}, {"--node-rank is 2", "nodes go from 0 to 1"});
  refuse({.node_rank = -1}, {"--node-rank is -1"});
}

TEST(LaunchPlan, FindsTheMeetingPlace) {
  const auto place = [](const LaunchOptions& options) {
    const LaunchPlan plan = make_launch_plan(options, kMachine);
    return plan.master_addr + " " +
           (plan.master_port_free ? "any" : std::to_string(plan.master_port));
  };
  EXPECT_EQ(place({}), "127.0.0.1 29500");
  EXPECT_EQ(place({.master_addr = "head", .master_port = 1234}), "head 1234");
  EXPECT_EQ(place({.rdzv_endpoint = "head"}), "head 29500");
  EXPECT_EQ(place({.rdzv_endpoint = "head:4321", .master_addr = "other"}), "head 4321");
  EXPECT_EQ(place({.rdzv_endpoint = "[fd00::1]:4321"}), "fd00::1 4321");
  EXPECT_EQ(place({.rdzv_endpoint = "[fd00::1]"}), "fd00::1 29500");
  EXPECT_EQ(place({.rdzv_endpoint = "localhost:0"}), "localhost any");
  EXPECT_EQ(place({.standalone = true}), "127.0.0.1 any");
  for (const char* text :
       {":29500", "head:", "head:x", "head:65536", "[fd00::1", "[]:1", "[::1]x"}) {
    refuse({.rdzv_endpoint = text}, {"--rdzv-endpoint is '"});
  }
  refuse({.nnodes = "2", .standalone = true}, {"--standalone is for one node"});
  refuse({.nnodes = "2", .rdzv_endpoint = "head:0"}, {"give --master-port"});
  refuse({.rdzv_backend = "c10d"}, {"only static is supported"});
}

TEST(LaunchPlan, RefusesIdsThatNameNoRun) {
  EXPECT_EQ(make_launch_plan({.rdzv_id = std::string(200, 'x')}, kMachine).run_id.size(), 200u);
  refuse({.rdzv_id = std::string(1200, 'x')}, {"--rdzv-id has 1200 bytes, 'xxx", "at most 200"});
  refuse({.rdzv_id = "../job"}, {"--rdzv-id is '../job'", "--log-dir"});
  refuse({.rdzv_id = "a\nb"}, {"--rdzv-id has the control character 0x0a"});
}

TEST(LaunchPlan, RoutesOutput) {
  const auto route = [](const LaunchOptions& options) {
    const LaunchPlan plan = make_launch_plan(options, kMachine);
    std::string text;
    for (std::size_t r = 0; r < plan.out.size(); ++r) {
      for (const Sink& sink : {plan.out[r], plan.err[r]}) {
        text += sink.console ? (sink.file ? "both " : "console ") : (sink.file ? "file " : "none ");
      }
    }
    return text;
  };
  EXPECT_EQ(route({.nproc_per_node = "2"}), "console console console console ");
  EXPECT_EQ(route({.nproc_per_node = "2", .redirects = "3"}), "file file file file ");
  EXPECT_EQ(route({.nproc_per_node = "2", .redirects = "1"}), "file console file console ");
  EXPECT_EQ(route({.nproc_per_node = "2", .tee = "2"}), "console both console both ");
  EXPECT_EQ(route({.nproc_per_node = "2", .redirects = "0:3", .tee = "0:1,1:2"}),
            "both file console both ");
  EXPECT_EQ(route({.nproc_per_node = "2", .tee = "1", .local_ranks_filter = "1"}),
            "file none both console ");
  for (const char* text : {"4", "x", "", "2:1", "0:", "0:4", "0:1,", "0:1:1"}) {
    refuse({.nproc_per_node = "2", .redirects = text}, {"--redirects is"});
    refuse({.nproc_per_node = "2", .tee = text}, {"--tee is"});
  }
  refuse({.nproc_per_node = "2", .local_ranks_filter = "2"}, {"--local-ranks-filter is '2'"});
}

TEST(LaunchPlan, TellsWorkersTheirPlace) {
  const LaunchPlan plan = make_launch_plan(
      {.nproc_per_node = "4", .nnodes = "3", .node_rank = 2, .rdzv_id = "job", .max_restarts = 5},
      kMachine);
  std::map<std::string, std::string> got;
  for (const auto& [name, value] : worker_variables(plan, 1, 2)) got[name] = value;
  const std::map<std::string, std::string> want{{"RANK", "9"},
                                                {"LOCAL_RANK", "1"},
                                                {"WORLD_SIZE", "12"},
                                                {"LOCAL_WORLD_SIZE", "4"},
                                                {"GROUP_RANK", "2"},
                                                {"GROUP_WORLD_SIZE", "3"},
                                                {"ROLE_NAME", "default"},
                                                {"ROLE_RANK", "9"},
                                                {"ROLE_WORLD_SIZE", "12"},
                                                {"MASTER_ADDR", "127.0.0.1"},
                                                {"MASTER_PORT", "29500"},
                                                {"TORCHELASTIC_RESTART_COUNT", "2"},
                                                {"TORCHELASTIC_MAX_RESTARTS", "5"},
                                                {"TORCHELASTIC_RUN_ID", "job"},
                                                {"TORCHELASTIC_USE_AGENT_STORE", "False"}};
  EXPECT_EQ(got, want);
}

}  // namespace
}  // namespace carousel
