// Sums whose result does not depend on the number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/parallel.h"

namespace carousel::cpu {

/// Σ f(i) over i in [0, n) in float64: fixed blocks, each summed by one thread, added in order.
template <class F>
double ordered_sum(std::int64_t n, F&& f) {
  constexpr std::int64_t kBlock = 1 << 14;
  const std::int64_t blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> partial(static_cast<std::size_t>(blocks));
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      double sum = 0.0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t i = b * kBlock; i < std::min(n, (b + 1) * kBlock); ++i) sum += f(i);
      partial[static_cast<std::size_t>(b)] = sum;
    }
  });
  double total = 0.0;
  for (const double p : partial) total += p;
  return total;
}

}  // namespace carousel::cpu
