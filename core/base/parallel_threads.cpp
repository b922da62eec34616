// Plain-thread twin of parallel_openmp.cpp: slower to start, but visible to ThreadSanitizer.
#include <cstdlib>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/base/parallel.h"

namespace carousel {
namespace {

int initial_threads() {
  const char* env = std::getenv("OMP_NUM_THREADS");
  const int n = env != nullptr ? std::atoi(env) : 0;
  return n > 0 ? n : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int& thread_setting() {
  thread_local int threads = initial_threads();
  return threads;
}

thread_local bool inside = false;

}  // namespace

void init_threads() {}  // as many threads start as are asked for

int num_threads() { return thread_setting(); }

void set_num_threads(int n) {
  if (n < 1) throw UsageError("threads must be at least 1, got {}", n);
  thread_setting() = n;
}

bool in_parallel() { return inside; }

void detail::run_on_threads(int threads, const std::function<void(int)>& body) {
  std::vector<std::thread> workers;
  for (int t = 1; t < threads; ++t) {
    workers.emplace_back([&body, t] {
      inside = true;
      body(t);
    });
  }
  inside = true;
  body(0);
  inside = false;
  for (auto& w : workers) w.join();
}

}  // namespace carousel
