// One process that the launcher starts and watches.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/launcher/worker_output.h"

namespace carousel {

struct WorkerStart {
  std::string program;               ///< its path
  std::vector<std::string> command;  ///< what it finds as its command line
  std::vector<std::pair<std::string, std::string>> variables;  ///< added to the environment
  std::string prefix;                                          ///< of its lines on the console
  bool out_on_console = true;
  bool err_on_console = true;
  std::string out_file;  ///< empty: none
  std::string err_file;
};

/// How a worker ended.
struct WorkerEnd {
  int code = 0;    ///< its exit code, or 128 + the signal
  int signal = 0;  ///< that ended it; 0: none did
};

/// A child process in a process group of its own, without a terminal to read from, killed by the
/// kernel when this process dies. Its output comes through two pipes.
class Worker {
 public:
  /// `await_console` is for its output. Throws UsageError if the process cannot be started.
  Worker(const WorkerStart& start, const AwaitConsole& await_console);
  /// Kills what still runs.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  pid_t pid() const { return pid_; }
  bool running() const { return !end_; }
  const std::optional<WorkerEnd>& end() const { return end_; }
  /// The ends of the pipes to poll; -1: closed.
  int out() const { return pipes_[0].descriptor; }
  int err() const { return pipes_[1].descriptor; }

  /// Hands on some of what the pipes hold; does not block, but for consoles.
  void forward_output();
  /// Notices that the process has ended, with all it has printed, and ends what it may have left
  /// behind; true if this call noticed.
  bool reap();
  /// Sends a signal to the process group.
  void signal(int number) const;
  /// The "error: " lines it printed to stderr.
  const std::string& errors() const { return pipes_[1].output.errors(); }

 private:
  struct Pipe {
    int descriptor = -1;
    WorkerOutput output;
    /// False: there is no more now.
    bool forward_some();
    void close();
  };

  pid_t pid_ = -1;
  Pipe pipes_[2];
  std::optional<WorkerEnd> end_;
};

}  // namespace carousel
