#include "train/launcher/launcher.h"

#include <fmt/ranges.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/log.h"
#include "train/launcher/worker_group.h"

namespace carousel {
namespace fs = std::filesystem;
namespace {

// A free port, kept: while this socket is bound, the system gives the port to nobody who does not
// ask for it by number, and the workers' server may still listen there.
class ReservedPort {
 public:
  ReservedPort() : descriptor_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    sockaddr_in address{};
    address.sin_family = AF_INET;
    socklen_t size = sizeof address;
    ::setsockopt(descriptor_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(descriptor_, reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
        ::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      const int error = errno;
      ::close(descriptor_);
      throw UsageError("cannot find a free port: {}", std::generic_category().message(error));
    }
    number_ = ntohs(address.sin_port);
  }
  ~ReservedPort() { ::close(descriptor_); }
  ReservedPort(const ReservedPort&) = delete;
  ReservedPort& operator=(const ReservedPort&) = delete;

  int number() const { return number_; }

 private:
  int descriptor_;
  int number_ = 0;
};

bool writes_files(const LaunchPlan& plan) {
  const auto to_file = [](const Sink& sink) { return sink.file; };
  return std::ranges::any_of(plan.out, to_file) || std::ranges::any_of(plan.err, to_file);
}

// LOG_DIR/RUN_ID_XXXXXX: nodes that share the file system do not meet there.
fs::path make_log_directory(const LaunchPlan& plan) {
  const fs::path parent = plan.log_dir.empty() ? fs::temp_directory_path() : fs::path(plan.log_dir);
  std::error_code error;
  fs::create_directories(parent, error);
  std::string name = (parent / (plan.run_id + "_XXXXXX")).string();
  if (error || ::mkdtemp(name.data()) == nullptr) {
    throw UsageError("{}; choose another --log-dir",
                     io_error("create a directory in", parent, error ? error.value() : errno));
  }
  return name;
}

std::vector<std::pair<std::string, std::string>> all_variables(const LaunchPlan& plan,
                                                               int local_rank, int restart) {
  auto variables = worker_variables(plan, local_rank, restart);
  if (::getenv("OMP_NUM_THREADS") == nullptr) {
    variables.emplace_back("OMP_NUM_THREADS", std::to_string(plan.threads_per_worker));
  }
  return variables;
}

std::vector<WorkerStart> make_starts(const LaunchPlan& plan, const std::string& program,
                                     const std::vector<std::string>& command, int restart,
                                     const fs::path& logs) {
  std::vector<WorkerStart> starts;
  for (int local_rank = 0; local_rank < plan.local_world_size; ++local_rank) {
    const Sink& out = plan.out[static_cast<std::size_t>(local_rank)];
    const Sink& err = plan.err[static_cast<std::size_t>(local_rank)];
    WorkerStart start{.program = program,
                      .command = command,
                      .variables = all_variables(plan, local_rank, restart),
                      .prefix = fmt::format("[rank{}]: ", plan.rank(local_rank)),
                      .out_on_console = out.console,
                      .err_on_console = err.console};
    if (out.file || err.file) {
      const fs::path directory =
          logs / fmt::format("attempt_{}", restart) / std::to_string(local_rank);
      std::error_code error;
      fs::create_directories(directory, error);
      if (error) throw UsageError("{}", io_error("create", directory, error.value()));
      if (out.file) start.out_file = directory / "stdout.log";
      if (err.file) start.err_file = directory / "stderr.log";
    }
    starts.push_back(std::move(start));
  }
  return starts;
}

// Whether another attempt may end otherwise.
bool may_pass(int code) {
  constexpr std::array kLasting = {ExitCode::kUsage, ExitCode::kData, ExitCode::kCheckpoint,
                                   ExitCode::kNonFinite};
  return std::ranges::find(kLasting, static_cast<ExitCode>(code)) == kLasting.end();
}

}  // namespace

void launch(LaunchPlan plan, const std::string& program, const std::vector<std::string>& command) {
  std::optional<ReservedPort> port;
  if (plan.master_port_free) plan.master_port = port.emplace().number();
  fs::path logs;
  if (writes_files(plan)) {
    logs = make_log_directory(plan);
    log::info("the workers' output is in {}", logs.string());
  }
  // Whoever reads the output may go away; the training goes on.
  ::signal(SIGPIPE, SIG_IGN);
  LauncherSignals signals;
  for (int restart = 0;; ++restart) {
    const bool last = restart >= plan.max_restarts;
    WorkerGroup group(make_starts(plan, program, command, restart, logs),
                      {.first_rank = plan.rank(0),
                       .check_interval = std::chrono::milliseconds(
                           std::max(1, static_cast<int>(plan.monitor_interval * 1e3)))},
                      signals);
    const auto again = [&](const WorkerFailure& failure) {
      return !last && may_pass(failure.end.code) && signals.newest() == 0;
    };
    bool told = false;
    const auto tell = [&](const WorkerFailure& failure) {
      if (!std::exchange(told, true)) log::warn("{}", to_string(failure));
    };
    const GroupEnd end = group.wait(tell);
    signals.next();  // one that came behind the last worker's end counts, too
    if (!end.failure && !end.preempted) return;
    if (!end.failure) throw Preempted("stopped after saving; start again to continue");
    if (!again(*end.failure)) {
      throw Error(static_cast<ExitCode>(end.failure->end.code), to_string(*end.failure));
    }
    tell(*end.failure);
    log::info("starting all ranks again, restart {} of {}", restart + 1, plan.max_restarts);
  }
}

std::string describe_launch(const LaunchPlan& plan, const std::vector<std::string>& command) {
  std::string text;
  for (int local_rank = 0; local_rank < plan.local_world_size; ++local_rank) {
    for (const auto& [name, value] : all_variables(plan, local_rank, 0)) {
      text += fmt::format("{}={} ", name, value);
    }
    text += fmt::format("{}\n", fmt::join(command, " "));
  }
  return text;
}

}  // namespace carousel
