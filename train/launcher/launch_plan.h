// The options of `carousel run`, which are torchrun's, and what follows from them.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace carousel {

/// As given on the command line; the defaults are torchrun's.
struct LaunchOptions {
  std::string nproc_per_node = "1";  ///< a number, auto, gpu or cpu
  std::string nnodes = "1";          ///< a number, or N:N
  int node_rank = 0;
  std::string rdzv_backend = "static";
  std::string rdzv_endpoint;  ///< HOST[:PORT], in place of the two below
  std::string rdzv_id = "none";
  std::string master_addr = "127.0.0.1";
  int master_port = 29500;
  bool standalone = false;  ///< one host, any free port
  int max_restarts = 0;
  double monitor_interval = 0.1;  ///< seconds
  std::string role = "default";
  std::string log_dir;
  std::string redirects = "0";     ///< 0 none, 1 stdout, 2 stderr, 3 both; or 0:1,1:3 by local rank
  std::string tee = "0";           ///< the same
  std::string local_ranks_filter;  ///< 0,2: show these on the console; empty: all
};

/// Where a worker's stream goes.
struct Sink {
  bool console = true;
  bool file = false;
};

struct LaunchPlan {
  int nodes = 1;
  int node_rank = 0;
  int local_world_size = 1;
  std::string master_addr;
  int master_port = 0;  ///< 0: to be chosen
  std::string run_id;
  std::string role;
  int max_restarts = 0;
  double monitor_interval = 0.1;
  std::string log_dir;            ///< empty: a temporary one, if a sink is a file
  std::vector<Sink> out;          ///< by local rank
  std::vector<Sink> err;          ///< by local rank
  int threads_per_worker = 1;     ///< OMP_NUM_THREADS, unless the environment has it
  bool master_port_free = false;  ///< --standalone: any port does

  int rank(int local_rank) const { return node_rank * local_world_size + local_rank; }
  int world_size() const { return nodes * local_world_size; }
};

/// What the machine has.
struct LaunchResources {
  int gpus = 0;
  int cores = 1;  ///< that this process may use
};

/// Throws UsageError for values that mean nothing or contradict each other.
LaunchPlan make_launch_plan(const LaunchOptions& options, const LaunchResources& resources);

/// torchrun's variables for the worker with this local rank: RANK, WORLD_SIZE, … `restart` counts
/// from 0.
std::vector<std::pair<std::string, std::string>> worker_variables(const LaunchPlan& plan,
                                                                  int local_rank, int restart);

}  // namespace carousel
