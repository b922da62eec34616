#include "core/base/log.h"

#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <mutex>
#include <vector>

#include "core/base/error.h"

namespace carousel {
namespace {

// The log on stderr, with a status line below it where that is a terminal.
class ConsoleSink final : public spdlog::sinks::sink {
 public:
  ConsoleSink() : terminal_(isatty(STDERR_FILENO) != 0) { set_pattern("%^%l%$: %v"); }

  bool is_terminal() const { return terminal_; }

  void log(const spdlog::details::log_msg& message) override {
    const std::lock_guard lock(mutex_);
    if (!status_.empty()) std::fputs("\r\033[K", stderr);
    messages_.log(message);
    draw();
  }
  void flush() override { messages_.flush(); }
  void set_pattern(const std::string& pattern) override { messages_.set_pattern(pattern); }
  void set_formatter(std::unique_ptr<spdlog::formatter> formatter) override {
    messages_.set_formatter(std::move(formatter));
  }

  void show_status(const std::string& line) {
    if (!terminal_) return;
    const std::lock_guard lock(mutex_);
    status_ = line;
    draw();
  }
  void finish_status() {
    const std::lock_guard lock(mutex_);
    if (!status_.empty()) std::fputc('\n', stderr);
    status_.clear();
  }

 private:
  // A line that wraps could not be rewritten: \r goes back to the start of its last part only.
  void draw() const {
    if (status_.empty()) return;
    winsize window{};
    const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0;
    const std::string line = known ? status_.substr(0, window.ws_col) : status_;
    std::fprintf(stderr, "\r\033[K%s", line.c_str());
  }

  const bool terminal_;
  std::mutex mutex_;
  std::string status_;
  spdlog::sinks::ansicolor_stderr_sink_mt messages_;
};

std::shared_ptr<ConsoleSink> console;
std::shared_ptr<spdlog::logger> file_logger;

}  // namespace

void init_logging(const std::string& file) {
  finish_status();
  auto new_console = std::make_shared<ConsoleSink>();
  std::vector<spdlog::sink_ptr> sinks{new_console};
  std::shared_ptr<spdlog::logger> new_file_logger;
  if (!file.empty()) {
    try {
      auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file);
      sink->set_pattern("%Y-%m-%d %H:%M:%S %l: %v");
      sinks.push_back(sink);
      new_file_logger = std::make_shared<spdlog::logger>("file", sink);
      new_file_logger->flush_on(spdlog::level::info);
    } catch (const spdlog::spdlog_ex& e) {
      throw UsageError("cannot open the log file '{}': {}; choose a writable output_dir", file,
                       e.what());
    }
  }
  auto logger = std::make_shared<spdlog::logger>("carousel", sinks.begin(), sinks.end());
  logger->flush_on(spdlog::level::info);
  logger->set_level(spdlog::default_logger()->level());
  spdlog::set_default_logger(std::move(logger));
  console = std::move(new_console);
  file_logger = std::move(new_file_logger);
}

void log_to_file(const std::string& line) {
  if (file_logger != nullptr) file_logger->info(line);
}

bool log_is_terminal() { return console != nullptr && console->is_terminal(); }

void show_status(const std::string& line) {
  if (console != nullptr) console->show_status(line);
}

void finish_status() {
  if (console != nullptr) console->finish_status();
}

}  // namespace carousel
