// What a piece of code writes to stderr, be that a file or a terminal.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace carousel::testing {

/// Sends stderr to a new pseudo-terminal while it lives.
class TerminalStderr {
 public:
  explicit TerminalStderr(unsigned short columns) : saved_(dup(STDERR_FILENO)) {
    master_ = posix_openpt(O_RDWR | O_NOCTTY);
    if (master_ < 0 || grantpt(master_) != 0 || unlockpt(master_) != 0) {
      throw std::runtime_error("no pseudo-terminal");
    }
    const int slave = open(ptsname(master_), O_RDWR | O_NOCTTY);
    winsize window{};
    window.ws_col = columns;
    ioctl(slave, TIOCSWINSZ, &window);
    dup2(slave, STDERR_FILENO);
    close(slave);
  }
  ~TerminalStderr() {
    dup2(saved_, STDERR_FILENO);
    close(saved_);
    close(master_);
  }
  TerminalStderr(const TerminalStderr&) = delete;
  TerminalStderr& operator=(const TerminalStderr&) = delete;

  /// What was written since the last call. The terminal turns \n into \r\n.
  std::string read() const {
    std::string text;
    pollfd waiting{master_, POLLIN, 0};
    while (poll(&waiting, 1, 20) > 0 && (waiting.revents & POLLIN) != 0) {
      char buffer[4096];
      const ssize_t n = ::read(master_, buffer, sizeof buffer);
      if (n <= 0) break;
      text.append(buffer, static_cast<std::size_t>(n));
    }
    return text;
  }

 private:
  int saved_;
  int master_;
};

}  // namespace carousel::testing
