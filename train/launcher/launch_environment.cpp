#include "train/launcher/launch_environment.h"

#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/base/error.h"
#include "train/launcher/host_list.h"

namespace carousel {
namespace {

constexpr int kMaxProcesses = 1 << 20;

class Variables {
 public:
  explicit Variables(const EnvironmentLookup& lookup) : lookup_(lookup) {}

  bool has(const char* name) const { return lookup_(name) != nullptr; }

  std::string text(const char* name, const char* fallback = "") const {
    const char* value = lookup_(name);
    return value == nullptr ? fallback : value;
  }

  int number(const char* name, int min, int max) const {
    const std::string value = text(name);
    int n = 0;
    const char* end = value.data() + value.size();
    if (value.empty() || std::from_chars(value.data(), end, n).ptr != end || n < min || n > max) {
      throw UsageError("the environment variable {} is '{}', must be a number from {} to {}", name,
                       value, min, max);
    }
    return n;
  }
  int number_or(const char* name, int min, int max, int fallback) const {
    return has(name) ? number(name, min, max) : fallback;
  }

  /// The first of the names that is set; nullptr if none is.
  const char* first_of(std::initializer_list<const char*> names) const {
    for (const char* name : names) {
      if (has(name)) return name;
    }
    return nullptr;
  }

 private:
  const EnvironmentLookup& lookup_;
};

// Names of the variables that a launcher sets; local ones may be nullptr.
struct Names {
  const char* rank;
  const char* world_size;
  const char* local_rank;
  const char* local_world_size;
};

void read_ranks(const Variables& variables, const Names& names, LaunchEnvironment& out) {
  for (const auto& [present, missing] :
       {std::pair{names.rank, names.world_size}, std::pair{names.world_size, names.rank}}) {
    if (variables.has(present) && !variables.has(missing)) {
      throw UsageError(
          "the environment variable {} is set without {}; start through carousel run, torchrun, "
          "mpirun or srun, or unset it",
          present, missing);
    }
  }
  out.world_size = variables.number(names.world_size, 1, kMaxProcesses);
  out.rank = variables.number(names.rank, 0, kMaxProcesses);
  if (out.rank >= out.world_size) {
    throw UsageError("{} is {}, but {} is {}: ranks go from 0 to {}", names.rank, out.rank,
                     names.world_size, out.world_size, out.world_size - 1);
  }
  if (names.local_world_size != nullptr) {
    out.local_world_size =
        variables.number_or(names.local_world_size, 1, kMaxProcesses, out.local_world_size);
  }
  if (out.local_world_size > out.world_size) {
    throw UsageError("{} is {}, more than {}, {}", names.local_world_size, out.local_world_size,
                     names.world_size, out.world_size);
  }
  if (names.local_rank == nullptr) return;
  out.local_rank = variables.number_or(names.local_rank, 0, kMaxProcesses, 0);
  // Without a local size there is only this to hold it against.
  const bool sized = names.local_world_size != nullptr && variables.has(names.local_world_size);
  const int limit = sized ? out.local_world_size : out.world_size;
  if (out.local_rank >= limit) {
    throw UsageError("{} is {}, but there are {} processes{}", names.local_rank, out.local_rank,
                     limit, sized ? " on this host" : "");
  }
}

// The number of processes on host `node` from Slurm's "2(x3),1".
int tasks_on_node(std::string_view text, int node) {
  for (int first = 0; !text.empty();) {
    const std::string_view entry = text.substr(0, text.find(','));
    int tasks = 0;
    int repeat = 1;
    const char* end = entry.data() + entry.size();
    const char* next = std::from_chars(entry.data(), end, tasks).ptr;
    if (end - next > 3 && next[0] == '(' && next[1] == 'x') {
      std::from_chars(next + 2, end, repeat);
    }
    if (node < first + repeat) return tasks;
    first += repeat;
    text.remove_prefix(std::min(text.size(), entry.size() + 1));
  }
  return 0;
}

// Between the ports that servers use by default and those that the system gives out.
int port_of_job(std::uint64_t job) {
  constexpr std::uint64_t kFirst = 15000;
  constexpr std::uint64_t kCount = 15000;
  return static_cast<int>(kFirst + job % kCount);
}

void read_meeting_place(const Variables& variables, LaunchEnvironment& out) {
  const char* hosts =
      variables.first_of({"SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST"});
  if (variables.has("MASTER_ADDR")) {
    out.master_addr = variables.text("MASTER_ADDR");
  } else if (out.launcher == "srun" && hosts != nullptr) {
    out.master_addr = expand_host_list(variables.text(hosts)).front();
  } else if (out.world_size > out.local_world_size) {
    throw UsageError(
        "the environment variable MASTER_ADDR is not set, so that {} processes on several hosts "
        "cannot find rank 0; pass it to all of them",
        out.world_size);
  }
  if (out.master_addr.empty()) throw UsageError("the environment variable MASTER_ADDR is empty");
  if (!variables.has("MASTER_PORT") && variables.has("SLURM_JOB_ID")) {
    out.master_port =
        port_of_job(static_cast<std::uint64_t>(variables.number("SLURM_JOB_ID", 0, 2147483647)));
  } else {
    out.master_port = variables.number_or("MASTER_PORT", 1, 65535, out.master_port);
  }
  // torchrun may keep that port for a store of its own, whose protocol is PyTorch's; the ports
  // beside it may be taken by its connections.
  if (variables.text("TORCHELASTIC_USE_AGENT_STORE") == "True") {
    const std::string job = fmt::format("{} {}", out.run_id, out.master_port);
    out.master_port = port_of_job(XXH3_64bits(job.data(), job.size()));
  }
}

LaunchEnvironment from_torchrun(const Variables& variables) {
  LaunchEnvironment out{.launcher = "torchrun"};
  read_ranks(variables, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}, out);
  out.restart_count = variables.number_or("TORCHELASTIC_RESTART_COUNT", 0, 1 << 30, 0);
  out.run_id = variables.text("TORCHELASTIC_RUN_ID");
  check_run_id("TORCHELASTIC_RUN_ID", out.run_id);
  return out;
}

// srun's PMI-2 plugin gives its tasks MPICH's variables, too, but no local ranks.
bool is_srun_with_pmi(const Variables& variables) {
  return variables.has("SLURM_STEP_ID") && variables.has("SLURM_PROCID") &&
         variables.first_of({"OMPI_COMM_WORLD_RANK", "MPI_LOCALRANKID"}) == nullptr &&
         variables.text("SLURM_PROCID") == variables.text("PMI_RANK");
}

LaunchEnvironment from_mpirun(const Variables& variables) {
  LaunchEnvironment out{.launcher = "mpirun"};
  if (variables.has("OMPI_COMM_WORLD_RANK")) {
    read_ranks(variables,
               {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                "OMPI_COMM_WORLD_LOCAL_SIZE"},
               out);
  } else {
    read_ranks(variables, {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"}, out);
  }
  return out;
}

LaunchEnvironment from_srun(const Variables& variables) {
  LaunchEnvironment out{.launcher = "srun"};
  const char* tasks = variables.first_of({"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"});
  const char* nodes = variables.first_of({"SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"});
  if (nodes != nullptr) {
    const int node = variables.number_or("SLURM_NODEID", 0, kMaxProcesses, 0);
    out.local_world_size = std::max(1, tasks_on_node(variables.text(nodes), node));
  }
  read_ranks(
      variables,
      {"SLURM_PROCID", tasks == nullptr ? "SLURM_STEP_NUM_TASKS" : tasks, "SLURM_LOCALID", nullptr},
      out);
  out.restart_count = variables.number_or("SLURM_RESTART_COUNT", 0, 1 << 30, 0);
  out.run_id = variables.text("SLURM_JOB_ID");
  return out;
}

}  // namespace

void check_run_id(std::string_view name, std::string_view id) {
  constexpr std::size_t kMaxBytes = 200;
  if (id.size() > kMaxBytes) {
    throw UsageError("{} has {} bytes, '{}…'; give a name of at most {}", name, id.size(),
                     id.substr(0, 20), kMaxBytes);
  }
  for (const char c : id) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) continue;
    throw UsageError("{} has the control character {:#04x}; give a name without", name, byte);
  }
}

LaunchEnvironment detect_launch_environment(const EnvironmentLookup& lookup) {
  const Variables variables(lookup);
  LaunchEnvironment out;
  if (variables.first_of({"RANK", "WORLD_SIZE"}) != nullptr) {
    out = from_torchrun(variables);
  } else if (variables.first_of({"OMPI_COMM_WORLD_RANK", "PMI_RANK"}) != nullptr &&
             !is_srun_with_pmi(variables)) {
    out = from_mpirun(variables);
  } else if (variables.has("SLURM_STEP_ID") && variables.has("SLURM_PROCID")) {
    out = from_srun(variables);
  } else {
    return out;
  }
  if (out.world_size > 1) read_meeting_place(variables, out);
  return out;
}

}  // namespace carousel
