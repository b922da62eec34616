#include "train/launcher/worker.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "core/base/error.h"

extern char** environ;

namespace carousel {
namespace {

struct PipeEnds {
  int reader = -1;
  int writer = -1;
};

PipeEnds make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw UsageError("cannot start a worker: {}; raise the limit on open files (ulimit -n)",
                     std::generic_category().message(errno));
  }
  return {ends[0], ends[1]};
}

// The environment of this process with some variables replaced.
std::vector<std::string> environment_with(
    const std::vector<std::pair<std::string, std::string>>& variables) {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    bool replaced = false;
    for (const auto& [other, value] : variables) replaced |= name == other;
    if (!replaced) out.emplace_back(text);
  }
  for (const auto& [name, value] : variables) out.push_back(fmt::format("{}={}", name, value));
  return out;
}

std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

// In the child, between fork and exec: only system calls. Returns errno.
int become_worker(const char* program, char** command, char** environment, pid_t launcher, int out,
                  int err) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != launcher) ::_exit(128 + SIGKILL);  // it died before the line above
  const int nothing = ::open("/dev/null", O_RDONLY);
  if (::dup2(nothing, STDIN_FILENO) < 0 || ::dup2(out, STDOUT_FILENO) < 0 ||
      ::dup2(err, STDERR_FILENO) < 0) {
    return errno;
  }
  if (nothing > STDERR_FILENO) ::close(nothing);
  // The launcher blocks and ignores signals that are the workers' business.
  ::signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execve(program, command, environment);
  return errno;
}

}  // namespace

Worker::Worker(const WorkerStart& start, const AwaitConsole& await_console)
    : pipes_{{-1,
              {start.prefix, start.out_on_console ? STDOUT_FILENO : -1, start.out_file,
               await_console}},
             {-1,
              {start.prefix, start.err_on_console ? STDERR_FILENO : -1, start.err_file,
               await_console}}} {
  std::vector<std::string> command = start.command;
  std::vector<std::string> environment = environment_with(start.variables);
  const std::vector<char*> command_pointers = pointers_to(command);
  const std::vector<char*> environment_pointers = pointers_to(environment);
  const PipeEnds out = make_pipe();
  const PipeEnds err = make_pipe();
  const PipeEnds failure = make_pipe();  // closed by a successful exec
  const pid_t launcher = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {
    const int error = become_worker(
        start.program.c_str(), const_cast<char**>(command_pointers.data()),
        const_cast<char**>(environment_pointers.data()), launcher, out.writer, err.writer);
    const bool told = ::write(failure.writer, &error, sizeof error) == sizeof error;
    ::_exit(told ? 127 : 126);
  }
  int error = pid_ < 0 ? errno : 0;
  if (pid_ > 0) ::setpgid(pid_, pid_);  // both sides do, so that it is done for either
  ::close(out.writer);
  ::close(err.writer);
  ::close(failure.writer);
  pipes_[0].descriptor = out.reader;
  pipes_[1].descriptor = err.reader;
  if (pid_ > 0 && ::read(failure.reader, &error, sizeof error) <= 0) error = 0;
  ::close(failure.reader);
  for (const Pipe& pipe : pipes_) ::fcntl(pipe.descriptor, F_SETFL, O_NONBLOCK);
  if (error == 0) return;
  if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
  for (Pipe& pipe : pipes_) pipe.close();
  throw UsageError("cannot start '{}': {}", start.program, std::generic_category().message(error));
}

Worker::~Worker() {
  if (running()) {
    signal(SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  for (Pipe& pipe : pipes_) pipe.close();
}

void Worker::forward_output() {
  for (Pipe& pipe : pipes_) pipe.forward_some();
}

bool Worker::reap() {
  if (end_) return false;
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
      info.si_pid == 0) {
    return false;
  }
  signal(SIGKILL);  // while the dead process still holds its number, the group is its own
  int status = 0;
  ::waitpid(pid_, &status, 0);
  end_ = WIFSIGNALED(status) ? WorkerEnd{128 + WTERMSIG(status), WTERMSIG(status)}
                             : WorkerEnd{WEXITSTATUS(status), 0};
  for (Pipe& pipe : pipes_) {
    while (pipe.forward_some()) {
    }
    pipe.output.finish();
    pipe.close();
  }
  return true;
}

void Worker::signal(int number) const { ::kill(-pid_, number); }

bool Worker::Pipe::forward_some() {
  std::array<char, 65536> buffer;
  if (descriptor < 0) return false;
  const ssize_t n = ::read(descriptor, buffer.data(), buffer.size());
  if (n > 0) {
    output.write({buffer.data(), static_cast<std::size_t>(n)});
    return true;
  }
  if (n < 0 && errno == EINTR) return true;
  if (n == 0 || errno != EAGAIN) close();
  return false;
}

void Worker::Pipe::close() {
  if (descriptor >= 0) ::close(descriptor);
  descriptor = -1;
}

}  // namespace carousel
