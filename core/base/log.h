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

}  // namespace carousel
