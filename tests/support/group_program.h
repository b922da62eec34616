// Runs the program as a group of processes, as a launcher would.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/comm/store.h"
#include "tests/support/program.h"

namespace carousel::testing {

/// One process of a group on this host.
struct GroupProcess {
  int rank = 0;
  int world_size = 1;
  std::string arguments;
  std::string program = CAROUSEL_PROGRAM;
};

/// A port that was free just now.
inline std::uint16_t free_port() { return comm::StoreServer(0).port(); }

/// Runs the processes, on one thread each, which meet at `port`. Outcomes in the order of
/// processes.
inline std::vector<Outcome> run_processes(const std::vector<GroupProcess>& processes,
                                          std::uint16_t port = free_port()) {
  const TempDir dir;
  std::string script = "cd '" + dir.path() + "'; ";
  for (std::size_t i = 0; i < processes.size(); ++i) {
    const GroupProcess& p = processes[i];
    script += fmt::format(
        "(RANK={0} LOCAL_RANK={0} WORLD_SIZE={1} LOCAL_WORLD_SIZE={1} MASTER_ADDR=127.0.0.1 "
        "MASTER_PORT={2} OMP_NUM_THREADS=1 '{3}' {4} >out{5} 2>err{5}; echo $? >code{5}) & ",
        p.rank, p.world_size, port, p.program, p.arguments, i);
  }
  if (std::system((script + "wait").c_str()) != 0) throw std::runtime_error("the shell failed");
  std::vector<Outcome> outcomes;
  for (std::size_t i = 0; i < processes.size(); ++i) {
    const auto text = [&](const char* name) {
      return read_file(dir / fmt::format("{}{}", name, i));
    };
    outcomes.push_back({std::stoi(text("code")), text("out"), text("err")});
  }
  return outcomes;
}

/// Runs `carousel arguments` in `world_size` processes; `extra(rank)`, if given, is put behind the
/// arguments of one rank. Outcomes in the order of ranks.
inline std::vector<Outcome> run_group(int world_size, const std::string& arguments,
                                      const std::function<std::string(int)>& extra = {}) {
  std::vector<GroupProcess> processes;
  for (int r = 0; r < world_size; ++r) {
    processes.push_back({r, world_size, fmt::format("{} {}", arguments, extra ? extra(r) : "")});
  }
  return run_processes(processes);
}

}  // namespace carousel::testing
