#include <omp.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/base/parallel.h"

namespace carousel {

void init_threads() {
  omp_set_dynamic(0);
  omp_set_num_threads(std::min(omp_get_max_threads(), omp_get_thread_limit()));
}

int num_threads() { return omp_get_max_threads(); }

void set_num_threads(int n) {
  if (n < 1) throw UsageError("threads must be at least 1, got {}", n);
  omp_set_num_threads(n);
}

bool in_parallel() { return omp_in_parallel() != 0; }

void detail::run_on_threads(int threads, const std::function<void(int)>& body) {
#pragma omp parallel num_threads(threads)
  // OpenMP may give fewer threads than asked for; they share the parts.
  for (int t = omp_get_thread_num(); t < threads; t += omp_get_num_threads()) body(t);
}

}  // namespace carousel
