#include "core/comm/cuda/tree_sum.h"

#include <gtest/gtest.h>

#include "core/cuda/stream.h"
#include "tests/support/devices.h"

namespace carousel::comm {
namespace {

using testing::kGpu;

// ((0+1)+(2+3))+…, zeros where a vector is missing.
template <class T>
T sum_by_halves(std::vector<T> x) {
  while (x.size() > 1) {
    if (x.size() % 2 != 0) x.push_back(0);
    for (std::size_t i = 0; i < x.size() / 2; ++i) x[i] = x[2 * i] + x[2 * i + 1];
    x.resize(x.size() / 2);
  }
  return x[0];
}

template <class T>
void expect_sums(int count, std::int64_t n, std::int64_t skipped) {
  const auto vectors = static_cast<std::int64_t>(count);
  std::vector<T> host(static_cast<std::size_t>(vectors * n + skipped));
  for (std::size_t i = 0; i < host.size(); ++i) {
    host[i] = static_cast<T>(philox_normal({3, 0, 0}, i));
  }
  const Tensor device = Tensor::from<T>(host, {vectors * n + skipped}, kGpu);
  // The sum takes the place of the last vector.
  std::vector<const void*> at;
  for (std::int64_t v = 0; v < vectors; ++v) at.push_back(device.data<T>() + skipped + v * n);
  T* const sum = device.data<T>() + skipped + (vectors - 1) * n;
  tree_sum(at, n, sum, cuda::Stream(kGpu).handle());
  const std::vector<T> result = device.to_vector<T>();
  for (std::int64_t i = 0; i < n; ++i) {
    std::vector<T> terms;
    for (std::int64_t v = 0; v < vectors; ++v) {
      terms.push_back(host[static_cast<std::size_t>(skipped + v * n + i)]);
    }
    ASSERT_EQ(result[static_cast<std::size_t>(skipped + (vectors - 1) * n + i)],
              sum_by_halves(terms))
        << count << " vectors of " << n << ", element " << i;
  }
}

TEST(CudaTreeSum, AddsByHalvesAtAnySizeAndAlignment) {
  CAROUSEL_REQUIRE_CUDA();
  for (const int count : {1, 2, 3, 4, 5, 8, 16, 33, 64}) {
    for (const std::int64_t n : {1ll, 7ll, 64ll, 1000ll, 5000ll}) {
      expect_sums<float>(count, n, 0);
      expect_sums<double>(count, n, 0);
    }
  }
  expect_sums<float>(2, 1000, 1);
  expect_sums<float>(4, 4096, 3);
}

}  // namespace
}  // namespace carousel::comm
