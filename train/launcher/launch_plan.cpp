#include "train/launcher/launch_plan.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <optional>
#include <string_view>

#include "core/base/error.h"
#include "train/launcher/launch_environment.h"

namespace carousel {
namespace {

constexpr int kMaxWorkers = 4096;
constexpr int kMaxNodes = 65536;

std::optional<int> to_number(std::string_view text, int min, int max) {
  int n = 0;
  const char* end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data(), end, n);
  if (error != std::errc() || next != end || n < min || n > max) return std::nullopt;
  return n;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

int workers_per_node(const std::string& text, const LaunchResources& resources) {
  if (text == "cpu") return resources.cores;
  if (text == "auto") return resources.gpus > 0 ? resources.gpus : resources.cores;
  if (text == "gpu") {
    if (resources.gpus > 0) return resources.gpus;
    throw UsageError("--nproc-per-node gpu, but this program sees no GPU; see carousel doctor");
  }
  if (const auto n = to_number(text, 1, kMaxWorkers)) return *n;
  throw UsageError("--nproc-per-node is '{}', must be a number from 1 to {}, auto, gpu or cpu",
                   text, kMaxWorkers);
}

int number_of_nodes(const std::string& text) {
  const auto parts = split(text, ':');
  if (const auto n = to_number(parts.front(), 1, kMaxNodes); n && parts.size() <= 2) {
    if (parts.size() == 1 || parts[1] == parts[0]) return *n;
    throw UsageError("--nnodes is '{}': the number of nodes is fixed here, give one number", text);
  }
  throw UsageError("--nnodes is '{}', must be a number from 1 to {}", text, kMaxNodes);
}

// HOST, HOST:PORT or [IPv6]:PORT.
void read_endpoint(const std::string& text, LaunchPlan& plan) {
  const bool bracketed = text.starts_with('[');
  const std::size_t host_end = bracketed ? text.find(']') : text.rfind(':');
  const std::size_t colon = bracketed && host_end != std::string::npos ? host_end + 1 : host_end;
  plan.master_addr = bracketed && host_end != std::string::npos ? text.substr(1, host_end - 1)
                                                                : text.substr(0, host_end);
  std::optional<int> port = plan.master_port;
  if (colon < text.size()) {
    port = text[colon] == ':' ? to_number(text.substr(colon + 1), 0, 65535) : std::nullopt;
  }
  if (plan.master_addr.empty() || !port || (bracketed && host_end == std::string::npos)) {
    throw UsageError("--rdzv-endpoint is '{}', must be HOST or HOST:PORT", text);
  }
  plan.master_port = *port;
}

void choose_meeting_place(const LaunchOptions& options, LaunchPlan& plan) {
  if (options.rdzv_backend != "static") {
    throw UsageError(
        "--rdzv-backend is '{}', but only static is supported: start with --node-rank on each node",
        options.rdzv_backend);
  }
  plan.master_addr = options.master_addr;
  plan.master_port = options.master_port;
  if (options.standalone) {
    if (plan.nodes > 1) {
      throw UsageError("--standalone is for one node, but --nnodes is {}", plan.nodes);
    }
    plan.master_addr = "127.0.0.1";
    plan.master_port_free = true;
  } else if (!options.rdzv_endpoint.empty()) {
    read_endpoint(options.rdzv_endpoint, plan);
  }
  if (plan.master_port == 0) {
    if (plan.nodes > 1) {
      throw UsageError("port 0 lets each node choose its own; give --master-port for {} nodes",
                       plan.nodes);
    }
    plan.master_port_free = true;
  }
}

// "3" for all local ranks, or "0:1,2:3" for some: which of stdout (1) and stderr (2).
std::vector<int> streams_by_rank(const char* flag, const std::string& text, int workers) {
  std::vector<int> out(static_cast<std::size_t>(workers), 0);
  if (const auto all = to_number(text, 0, 3)) {
    std::fill(out.begin(), out.end(), *all);
    return out;
  }
  for (const std::string_view entry : split(text, ',')) {
    const auto parts = split(entry, ':');
    const auto rank = to_number(parts.front(), 0, workers - 1);
    const auto streams = parts.size() == 2 ? to_number(parts[1], 0, 3) : std::nullopt;
    if (!rank || !streams) {
      throw UsageError(
          "{} is '{}', must be 0 (none), 1 (stdout), 2 (stderr) or 3 (both), or a list like "
          "0:1,1:3 "
          "by local rank (0 to {})",
          flag, text, workers - 1);
    }
    out[static_cast<std::size_t>(*rank)] = *streams;
  }
  return out;
}

std::vector<bool> shown_ranks(const std::string& filter, int workers) {
  std::vector<bool> shown(static_cast<std::size_t>(workers), filter.empty());
  if (filter.empty()) return shown;
  for (const std::string_view entry : split(filter, ',')) {
    const auto rank = to_number(entry, 0, workers - 1);
    if (!rank) {
      throw UsageError("--local-ranks-filter is '{}', must be a list of local ranks from 0 to {}",
                       filter, workers - 1);
    }
    shown[static_cast<std::size_t>(*rank)] = true;
  }
  return shown;
}

void route_output(const LaunchOptions& options, LaunchPlan& plan) {
  const int workers = plan.local_world_size;
  const auto redirected = streams_by_rank("--redirects", options.redirects, workers);
  const auto teed = streams_by_rank("--tee", options.tee, workers);
  const auto shown = shown_ranks(options.local_ranks_filter, workers);
  for (std::size_t r = 0; r < shown.size(); ++r) {
    const auto sink = [&](int stream) {
      const bool file = ((redirected[r] | teed[r]) & stream) != 0;
      const bool hidden = (redirected[r] & ~teed[r] & stream) != 0;
      return Sink{.console = shown[r] && !hidden, .file = file};
    };
    plan.out.push_back(sink(1));
    plan.err.push_back(sink(2));
  }
}

}  // namespace

LaunchPlan make_launch_plan(const LaunchOptions& options, const LaunchResources& resources) {
  LaunchPlan plan{.nodes = number_of_nodes(options.nnodes),
                  .node_rank = options.node_rank,
                  .local_world_size = workers_per_node(options.nproc_per_node, resources),
                  .run_id = options.rdzv_id,
                  .role = options.role,
                  .max_restarts = options.max_restarts,
                  .monitor_interval = options.monitor_interval,
                  .log_dir = options.log_dir};
  if (plan.node_rank < 0 || plan.node_rank >= plan.nodes) {
    throw UsageError("--node-rank is {}, but there {} --nnodes = {}: nodes go from 0 to {}",
                     plan.node_rank, plan.nodes == 1 ? "is" : "are", plan.nodes, plan.nodes - 1);
  }
  check_run_id("--rdzv-id", options.rdzv_id);
  if (options.rdzv_id.find('/') != std::string::npos) {
    throw UsageError("--rdzv-id is '{}', but it also names a directory in --log-dir: give it no /",
                     options.rdzv_id);
  }
  choose_meeting_place(options, plan);
  route_output(options, plan);
  plan.threads_per_worker = std::max(1, resources.cores / plan.local_world_size);
  return plan;
}

std::vector<std::pair<std::string, std::string>> worker_variables(const LaunchPlan& plan,
                                                                  int local_rank, int restart) {
  const std::string rank = std::to_string(plan.rank(local_rank));
  const std::string world_size = std::to_string(plan.world_size());
  return {{"RANK", rank},
          {"LOCAL_RANK", std::to_string(local_rank)},
          {"WORLD_SIZE", world_size},
          {"LOCAL_WORLD_SIZE", std::to_string(plan.local_world_size)},
          {"GROUP_RANK", std::to_string(plan.node_rank)},
          {"GROUP_WORLD_SIZE", std::to_string(plan.nodes)},
          {"ROLE_NAME", plan.role},
          {"ROLE_RANK", rank},
          {"ROLE_WORLD_SIZE", world_size},
          {"MASTER_ADDR", plan.master_addr},
          {"MASTER_PORT", std::to_string(plan.master_port)},
          {"TORCHELASTIC_RESTART_COUNT", std::to_string(restart)},
          {"TORCHELASTIC_MAX_RESTARTS", std::to_string(plan.max_restarts)},
          {"TORCHELASTIC_RUN_ID", plan.run_id},
          {"TORCHELASTIC_USE_AGENT_STORE", "False"}};
}

}  // namespace carousel
