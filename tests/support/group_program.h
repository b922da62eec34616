// Runs the program as a group of processes, as a launcher would.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/comm/store.h"
#include "tests/support/program.h"

namespace carousel::testing {

/// Runs `carousel arguments` in `world_size` processes on one thread each; `extra(rank)`, if given,
/// is put behind the arguments of one rank. Outcomes in the order of ranks.
inline std::vector<Outcome> run_group(int world_size, const std::string& arguments,
                                      const std::function<std::string(int)>& extra = {}) {
  const TempDir dir;
  const std::uint16_t port = comm::StoreServer(0).port();
  std::string script = "cd '" + dir.path() + "'; ";
  for (int r = 0; r < world_size; ++r) {
    script += fmt::format(
        "(RANK={0} LOCAL_RANK={0} WORLD_SIZE={1} LOCAL_WORLD_SIZE={1} MASTER_ADDR=127.0.0.1 "
        "MASTER_PORT={2} OMP_NUM_THREADS=1 '" CAROUSEL_PROGRAM
        "' {3} {4} >out{0} 2>err{0}; echo $? >code{0}) & ",
        r, world_size, port, arguments, extra ? extra(r) : "");
  }
  if (std::system((script + "wait").c_str()) != 0) throw std::runtime_error("the shell failed");
  std::vector<Outcome> outcomes;
  for (int r = 0; r < world_size; ++r) {
    const auto text = [&](const char* name) {
      return read_file(dir / fmt::format("{}{}", name, r));
    };
    outcomes.push_back({std::stoi(text("code")), text("out"), text("err")});
  }
  return outcomes;
}

}  // namespace carousel::testing
