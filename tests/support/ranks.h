// Runs one function as every rank of a group: in threads, or in forked processes over gloo.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "core/comm/group.h"
#include "core/comm/threads.h"

namespace carousel::testing {

/// What the ranks' run(communicator) returned, or the message of what it threw.
template <class Run>
std::vector<std::string> in_threads(int world_size, Run&& run, int timeout_ms = 10000) {
  comm::ThreadGroup group(world_size);
  std::vector<std::string> results(static_cast<std::size_t>(world_size));
  std::vector<std::thread> threads;
  for (int r = 0; r < world_size; ++r) {
    threads.emplace_back([&, r] {
      std::string& result = results[static_cast<std::size_t>(r)];
      try {
        const auto communicator = group.join(r, comm::Milliseconds{timeout_ms});
        result = run(*communicator);
      } catch (const std::exception& e) {
        result = std::string("threw: ") + e.what();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  return results;
}

/// A child process whose output is a string.
struct Child {
  pid_t process = -1;
  int output = -1;
};

template <class Run>
Child start_child(Run&& run) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) throw std::runtime_error("pipe failed");
  const pid_t process = ::fork();
  if (process < 0) throw std::runtime_error("fork failed");
  if (process == 0) {
    ::close(ends[0]);
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
  return {process, ends[0]};
}

/// What the child returned; "died" behind it if it did.
inline std::string finish(const Child& child) {
  std::string result;
  std::array<char, 4096> buffer{};
  for (ssize_t n = 0; (n = ::read(child.output, buffer.data(), buffer.size())) > 0;) {
    result.append(buffer.data(), static_cast<std::size_t>(n));
  }
  ::close(child.output);
  int status = 0;
  ::waitpid(child.process, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) result += "died";
  return result;
}

/// The same over gloo, each rank a process. run() must not use OpenMP, whose threads do not survive
/// a fork. This process serves the store.
template <class Run>
std::vector<std::string> in_processes(int world_size, Run&& run, int timeout_ms = 10000) {
  std::vector<Child> children;
  std::vector<std::string> results;
  // Forked before the server's thread exists; the port comes through a pipe.
  std::array<int, 2> port_pipe{};
  if (::pipe(port_pipe.data()) != 0) throw std::runtime_error("pipe failed");
  for (int r = 0; r < world_size; ++r) {
    children.push_back(start_child([&, r]() -> std::string {
      std::uint16_t port = 0;
      if (::read(port_pipe[0], &port, sizeof port) != sizeof port) return "no port";
      comm::Group group({.rank = r, .world_size = world_size, .master_port = port, .serve = false},
                        kCpu, "test", comm::Milliseconds{10000}, comm::Milliseconds{timeout_ms});
      return run(group.communicator());
    }));
  }
  const comm::StoreServer server(0);
  const std::uint16_t port = server.port();
  for (int r = 0; r < world_size; ++r) {
    if (::write(port_pipe[1], &port, sizeof port) < 0) throw std::runtime_error("write failed");
  }
  for (const Child& child : children) results.push_back(finish(child));
  ::close(port_pipe[0]);
  ::close(port_pipe[1]);
  return results;
}

}  // namespace carousel::testing
