// The program running beside the test, which watches its output and sends it signals.
#pragma once

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/temp_dir.h"

namespace carousel::testing {

/// Whether a process runs; one whose parent has not collected it yet does not.
inline bool alive(pid_t pid) {
  const std::string status = read_file("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t name_end = status.rfind(')');
  return name_end != std::string::npos && status.substr(name_end, 3) != ") Z";
}

/// Looks until `there()` is true, for up to a minute; whether it became true.
template <class Condition>
bool becomes_true(Condition&& there) {
  for (int i = 0; i < 6000; ++i) {
    if (there()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

class BackgroundProgram {
 public:
  /// Starts `program arguments` by the shell, on one thread, with `variables` ("A=b C=d") in its
  /// environment.
  explicit BackgroundProgram(const std::string& arguments, const std::string& variables = "",
                             const std::string& program = CAROUSEL_PROGRAM) {
    const std::string command = "exec env OMP_NUM_THREADS=1 " + variables + " '" + program + "' " +
                                arguments + " >'" + output_path() + "' 2>&1";
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that runs out of time leaves nothing behind
      ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      ::_exit(127);
    }
  }
  ~BackgroundProgram() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  BackgroundProgram(const BackgroundProgram&) = delete;
  BackgroundProgram& operator=(const BackgroundProgram&) = delete;

  pid_t pid() const { return pid_; }
  /// What came on stdout and stderr so far.
  std::string output() const { return read_file(output_path()); }
  bool prints(const std::string& text) const {
    return becomes_true([&] { return output().find(text) != std::string::npos; });
  }
  void signal(int number) const { ::kill(pid_, number); }

  /// Its child processes, oldest first: of `carousel run`, the ranks.
  std::vector<pid_t> children() const {
    const std::string id = std::to_string(pid_);
    std::istringstream list(read_file("/proc/" + id + "/task/" + id + "/children"));
    std::vector<pid_t> ids;
    for (pid_t child = 0; list >> child;) ids.push_back(child);
    return ids;
  }

  /// Its exit code, or 128 + the signal that ended it: SIGKILL, from here, after a minute.
  int wait() {
    int status = 0;
    if (!becomes_true([&] { return ::waitpid(pid_, &status, WNOHANG) != 0; })) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, &status, 0);
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  std::string output_path() const { return dir_ / "output"; }

  TempDir dir_;
  pid_t pid_ = -1;
};

}  // namespace carousel::testing
