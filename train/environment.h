// What a run's results depend on besides its configuration and data: the program and the machine.
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace carousel {

/// "carousel 0.1.0 (0bc4e2510f3a)".
std::string version_text();

/// The present time as "2025-01-31T12:00:00Z".
std::string now_text();
/// This machine's name; empty if the system does not tell.
std::string host_name();
/// The CPU's name as the system gives it.
std::string cpu_name();
/// "AVX2 FMA BMI2 …": the instruction sets that are present.
std::string simd_text();

struct MemoryInfo {
  std::size_t total = 0;
  std::size_t available = 0;  ///< without swapping
};
/// The machine's memory; zeros if the system does not tell.
MemoryInfo memory_info();

/// Program, build, machine, threads, libraries, command line and the present time.
nlohmann::ordered_json environment();
/// Writes environment() to env.json at `path`. Throws UsageError if that fails.
void write_environment(const std::filesystem::path& path);

}  // namespace carousel
