// Runs the program itself; CAROUSEL_PROGRAM is its path.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <string>

#include "tests/support/temp_dir.h"

namespace carousel::testing {

struct Outcome {
  int code = -1;  ///< exit code, or 128 + the signal that ended it
  std::string out;
  std::string err;
};

/// Runs `carousel arguments` in the shell, on one thread unless `before` says otherwise: variables,
/// and a command that runs the program.
inline Outcome run_program(const std::string& arguments,
                           const std::string& before = "OMP_NUM_THREADS=1") {
  const TempDir dir;
  const std::string command = before + " '" CAROUSEL_PROGRAM "' " + arguments + " >'" +
                              (dir / "out") + "' 2>'" + (dir / "err") + "'";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_file(dir / "out"),
          read_file(dir / "err")};
}

}  // namespace carousel::testing
