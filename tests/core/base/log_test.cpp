#include "core/base/log.h"

#include <gtest/gtest.h>

#include <string>

#include "core/base/error.h"
#include "tests/support/capture_stderr.h"
#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using testing::read_file;
using testing::TempDir;
using testing::TerminalStderr;

/// Whether messages are coloured depends on the environment.
std::string without_colours(const std::string& text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t end = text.find_first_not_of("0123456789;", i + 2);
    if (text.substr(i, 2) == "\033[" && end != std::string::npos && text[end] == 'm') {
      i = end;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

/// The log goes back to the test's own stderr when a test ends.
class Log : public ::testing::Test {
 protected:
  void TearDown() override { init_logging(); }
};

TEST_F(Log, GoesToStderrAndToTheFile) {
  const TempDir dir;
  ::testing::internal::CaptureStderr();
  init_logging(dir / "train.log");
  log::info("hello {}", 1);
  log_to_file("for the file alone");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "info: hello 1\n");
  const std::string file = read_file(dir / "train.log");
  EXPECT_NE(file.find(" info: hello 1\n"), std::string::npos) << file;
  EXPECT_NE(file.find(" info: for the file alone\n"), std::string::npos) << file;
}

TEST_F(Log, StatusLinesAreForTerminalsAlone) {
  ::testing::internal::CaptureStderr();
  init_logging();
  EXPECT_FALSE(log_is_terminal());
  show_status("step 1");
  finish_status();
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST_F(Log, AStatusLineStaysBelowTheMessages) {
  const TerminalStderr terminal(80);
  init_logging();
  EXPECT_TRUE(log_is_terminal());
  show_status("step 1");
  EXPECT_EQ(terminal.read(), "\r\033[Kstep 1");
  show_status("step 2");
  EXPECT_EQ(terminal.read(), "\r\033[Kstep 2");
  log::info("saved");
  EXPECT_EQ(without_colours(terminal.read()), "\r\033[Kinfo: saved\r\n\r\033[Kstep 2");
  finish_status();
  EXPECT_EQ(terminal.read(), "\r\n");
  log::info("done");
  EXPECT_EQ(without_colours(terminal.read()), "info: done\r\n");
  finish_status();
  EXPECT_EQ(terminal.read(), "");
}

TEST_F(Log, AStatusLineIsCutToTheTerminal) {
  const TerminalStderr terminal(10);
  init_logging();
  show_status("0123456789abc");
  EXPECT_EQ(terminal.read(), "\r\033[K0123456789");
  finish_status();
}

TEST_F(Log, AFileThatCannotBeOpenedIsNamed) {
  testing::expect_error<UsageError>([] { init_logging("/proc/nowhere/train.log"); },
                                    {"/proc/nowhere/train.log", "choose a writable output_dir"});
}

}  // namespace
}  // namespace carousel
