// Logging for the whole program: spdlog's default logger, set up once by main() or the trainer.
#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace carousel {

namespace log = spdlog;

/// Sends the log to stderr (level and message alone, coloured on a terminal) and, if `file` is not
/// empty, appends it with timestamps to that file. Throws UsageError if the file cannot be opened.
/// Not thread-safe; call it before other threads log.
void init_logging(const std::string& file = "");

/// Appends a line to the log file alone, if there is one.
void log_to_file(const std::string& line);

/// Whether the log goes to a terminal, as it did when init_logging() ran.
bool log_is_terminal();
/// On a terminal, shows `line` below the log, in place of the status line before it; log messages
/// appear above it. A line wider than the terminal is cut. Does nothing elsewhere.
void show_status(const std::string& line);
/// Leaves the status line, if there is one, where it stands and ends it.
void finish_status();

}  // namespace carousel
