// Runs code in a forked child: for limits, namespaces and identities that a test must not keep.
#pragma once

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <exception>
#include <stdexcept>
#include <string>

namespace carousel::testing {

/// All that comes from a pipe until its last writer has closed it.
inline std::string read_to_end(int descriptor) {
  std::string text;
  std::array<char, 4096> buffer{};
  for (ssize_t n = 0; (n = ::read(descriptor, buffer.data(), buffer.size())) > 0;) {
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return text;
}

/// What run(), called in a child process, returned; the message of what it threw; or how the child
/// died. run() must not use OpenMP, whose threads do not survive a fork.
template <class Run>
std::string in_child(Run&& run) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) throw std::runtime_error("pipe failed");
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    std::string result;
    try {
      result = run();
    } catch (const std::exception& e) {
      result = std::string("threw: ") + e.what();
    }
    const bool sent = ::write(ends[1], result.data(), result.size()) >= 0;
    ::_exit(sent ? 0 : 1);
  }
  ::close(ends[1]);
  std::string result = read_to_end(ends[0]);
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) result += " (the child died)";
  return result;
}

enum class Fate { kKilled, kFinished, kFailed, kUntraceable };

/// Runs run() in a child that is killed when it enters its n-th system call (from 0), which is then
/// not executed: the exhaustive version of a crash at a random moment. run() must not use OpenMP.
template <class Run>
Fate kill_at_system_call(int n, Run&& run) {
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(2);
    ::raise(SIGSTOP);
    try {
      run();
    } catch (const std::exception&) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  for (int stops = 0; WIFSTOPPED(status); ++stops) {
    if (stops == 2 * n + 1) {  // each call stops at its entry and at its return
      ::kill(child, SIGKILL);
    } else if (::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr) != 0) {
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      return Fate::kUntraceable;
    }
    ::waitpid(child, &status, 0);
  }
  if (WIFSIGNALED(status)) return Fate::kKilled;
  constexpr std::array fates{Fate::kFinished, Fate::kFailed, Fate::kUntraceable};
  return fates.at(static_cast<std::size_t>(WEXITSTATUS(status)));
}

}  // namespace carousel::testing
