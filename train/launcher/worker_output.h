// What a worker prints, line by line.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace carousel {

/// Called again and again while a console takes no more, as when it is stopped by Ctrl-S or its
/// reader is slow: returns when it may, or after something else that had to be done meanwhile.
using AwaitConsole = std::function<void(int descriptor)>;

/// Takes a stream as it comes and hands it on in whole lines.
class WorkerOutput {
 public:
  /// Each line goes, behind `prefix`, to the descriptor `console`, and as it is to the file at
  /// `file`; -1 and "" leave one out. Throws UsageError if the file cannot be created.
  WorkerOutput(std::string prefix, int console, const std::string& file,
               AwaitConsole await_console);
  ~WorkerOutput();
  WorkerOutput(const WorkerOutput&) = delete;
  WorkerOutput& operator=(const WorkerOutput&) = delete;

  void write(std::string_view bytes);
  /// The stream has ended: what is left is a line, too.
  void finish();
  /// The first lines that began with "error: ", without that: why the worker failed.
  const std::string& errors() const { return errors_; }

 private:
  void line(std::string_view text);

  std::string prefix_;
  AwaitConsole await_console_;
  int console_;
  int own_console_ = -1;
  int file_ = -1;
  std::string partial_;
  std::string errors_;
  int error_lines_ = 0;
};

}  // namespace carousel
