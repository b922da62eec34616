// Data parallelism on the CPU. Two link-time implementations: OpenMP (parallel_openmp.cpp) and
// plain threads (parallel_threads.cpp, for ThreadSanitizer, which cannot see into libgomp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

namespace carousel {

/// Makes the calling thread's later parallel work use exactly num_threads() threads, which it
/// lowers to what OMP_THREAD_LIMIT allows: OpenBLAS waits for ever for threads that OpenMP does not
/// give.
void init_threads();
/// Number of threads that parallel_for uses, OMP_NUM_THREADS or all cores unless set.
int num_threads();
/// Sets the number of threads for parallel_for and OpenBLAS, n >= 1.
void set_num_threads(int n);
/// True inside a parallel_for body; nested calls then run in the calling thread.
bool in_parallel();

namespace detail {
/// Calls body(0) … body(threads - 1), each once, on at most `threads` threads.
void run_on_threads(int threads, const std::function<void(int)>& body);
}  // namespace detail

/// Calls body(begin, end) on disjoint contiguous ranges that cover [0, n), at most one range per
/// thread and none (but the last) shorter than `grain`. The partition depends only on n, grain and
/// num_threads(), so results are repeatable. Exceptions must not leave the body.
template <class Body>
void parallel_for(std::int64_t n, std::int64_t grain, Body&& body) {
  if (n <= 0) return;
  const std::int64_t wanted = (n + grain - 1) / std::max<std::int64_t>(grain, 1);
  const int threads =
      in_parallel() ? 1 : static_cast<int>(std::min<std::int64_t>(wanted, num_threads()));
  if (threads <= 1) {
    body(std::int64_t{0}, n);
    return;
  }
  detail::run_on_threads(threads, [&](int t) {
    const std::int64_t begin = n * t / threads;
    const std::int64_t end = n * (t + 1) / threads;
    if (begin < end) body(begin, end);
  });
}

}  // namespace carousel
