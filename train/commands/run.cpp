#include <sched.h>

#include <algorithm>
#include <cctype>

#include "core/base/error.h"
#include "core/kernels/register.h"
#include "train/commands/commands.h"
#include "train/launcher/launcher.h"

namespace carousel {
namespace {

/// Options have torchrun's two spellings; the help shows one.
class OneSpelling : public CLI::Formatter {
 public:
  std::string make_option_name(const CLI::Option* option, bool positional) const override {
    if (positional || option->get_lnames().empty()) {
      return CLI::Formatter::make_option_name(option, positional);
    }
    std::string name = "--" + option->get_lnames().front();
    return option->get_snames().empty() ? name : "-" + option->get_snames().front() + "," + name;
  }
};

LaunchResources resources() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const bool known = ::sched_getaffinity(0, sizeof set, &set) == 0;
  return {.gpus = cuda_device_count(), .cores = known ? std::max(1, CPU_COUNT(&set)) : 1};
}

void check_command(const CLI::App& program, const std::vector<std::string>& command) {
  if (command.empty()) {
    throw UsageError("run: name what to run, e.g. carousel run --nproc-per-node 2 train CONFIG");
  }
  if (command.front().starts_with('-')) {
    throw UsageError("run: unknown option '{}'; see carousel run --help", command.front());
  }
  for (const CLI::App* known : program.get_subcommands({})) {
    if (known->get_name() == command.front() && command.front() != "run") return;
  }
  throw UsageError(
      "run: '{}' is no command that can be run in several processes; see carousel "
      "--help",
      command.front());
}

}  // namespace

void add_run(CLI::App& app) {
  const auto options = std::make_shared<LaunchOptions>();
  const auto dry_run = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("run",
                                         "Run a command in several processes, with torchrun's "
                                         "options: carousel run --nproc-per-node 2 train CONFIG");
  command->formatter(std::make_shared<OneSpelling>());
  command->prefix_command();
  // `names` is "-r,--redirects" or "--log-dir"; torchrun takes underscores, too, and PET_LOG_DIR.
  const auto add = [&](std::string names, auto& value, const char* doc) {
    const std::string name = names.substr(names.find("--") + 2);
    std::string underscored = name;
    std::replace(underscored.begin(), underscored.end(), '-', '_');
    std::string variable = "PET_" + underscored;
    for (char& c : variable) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    if (underscored != name) names += ",--" + underscored;
    return command->add_option(names, value, doc)->envname(variable)->capture_default_str();
  };
  add("--nproc-per-node", options->nproc_per_node,
      "processes on this node: a number, auto, gpu or cpu");
  add("--nnodes", options->nnodes, "nodes");
  add("--node-rank", options->node_rank, "this node's number, from 0");
  add("--master-addr", options->master_addr, "host of rank 0");
  add("--master-port", options->master_port,
      "port at which the processes meet there; 0: any free one")
      ->check(CLI::Range(0, 65535));
  add("--rdzv-endpoint", options->rdzv_endpoint, "HOST:PORT, in place of the two above");
  add("--rdzv-backend", options->rdzv_backend, "only static");
  add("--rdzv-id", options->rdzv_id, "name of the job");
  command->add_flag("--standalone", options->standalone, "one node, any free port");
  add("--max-restarts", options->max_restarts, "how often to start all again when one fails")
      ->check(CLI::NonNegativeNumber);
  add("--monitor-interval", options->monitor_interval,
      "longest time between two looks at the processes, in s")
      ->check(CLI::Range(0.001, 3600.0));
  add("--role", options->role, "name of the processes' role");
  add("--log-dir", options->log_dir,
      "where redirected output goes (default: a temporary directory)");
  add("-r,--redirects", options->redirects,
      "output to files: 1 stdout, 2 stderr, 3 both, or 0:3,1:1 by local rank");
  add("-t,--tee", options->tee, "the same, on the console as well");
  add("--local-ranks-filter", options->local_ranks_filter, "show only these local ranks, e.g. 0,2");
  command->add_flag("--dry-run", *dry_run, "show what would be started, and do no more");
  command->footer(
      "The processes get torchrun's environment (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, …), "
      "and\n"
      "OMP_NUM_THREADS = cores / processes unless it is set. Their lines come with [rankN]: in "
      "front.\n"
      "Signals are passed on; if one process fails, the others are ended and its exit code is "
      "ours.\n"
      "Example: carousel run --standalone --nproc-per-node gpu train "
      "configs/xlstm_large_400m.yaml");
  command->callback([&app, command, options, dry_run] {
    const std::vector<std::string> rest = command->remaining();
    check_command(app, rest);
    const LaunchPlan plan = make_launch_plan(*options, resources());
    std::vector<std::string> worker{"carousel"};
    worker.insert(worker.end(), rest.begin(), rest.end());
    if (*dry_run) {
      fmt::print("{}", describe_launch(plan, worker));
    } else {
      launch(plan, "/proc/self/exe", worker);  // this very program, even if its file was replaced
    }
  });
}

}  // namespace carousel
