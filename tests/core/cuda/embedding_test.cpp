#include "core/kernels/embedding.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"

namespace carousel {
namespace {

using testing::Bench;
using testing::expect_cuda_matches_cpu;

// Uniform ids, but a third of the tokens are id `frequent`.
std::vector<std::int32_t> some_ids(std::int64_t n, std::int64_t vocabulary, std::int32_t frequent) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::uint32_t word = philox_word({7, 0, 0}, i);
    ids[i] = word % 3 == 0
                 ? frequent
                 : static_cast<std::int32_t>(word / 3 % static_cast<std::uint32_t>(vocabulary));
  }
  return ids;
}

struct EmbeddingCase {
  std::int64_t tokens, vocabulary, width;
};

TEST(CudaEmbedding, MatchesTheCpuInBothDirections) {
  CAROUSEL_REQUIRE_CUDA();
  for (const EmbeddingCase& c :
       {EmbeddingCase{1, 1, 1}, EmbeddingCase{50, 2, 7}, EmbeddingCase{4000, 65, 96},
        EmbeddingCase{3000, 50304, 40}, EmbeddingCase{777, 300, 1032}}) {
    expect_cuda_matches_cpu([&](const Bench& bench) {
      const Tensor ids = bench.integers(
          some_ids(c.tokens, c.vocabulary, static_cast<std::int32_t>(c.vocabulary - 1)));
      const Tensor out = bench.output({c.tokens, c.width});
      const Tensor dweight = bench.wide_input({c.vocabulary, c.width}, 3);
      embedding_fwd(bench.device(), {ids, bench.input({c.vocabulary, c.width}, 1), out});
      embedding_bwd(bench.device(), {ids, bench.input({c.tokens, c.width}, 2), dweight});
      return std::vector<Tensor>{out, dweight};
    });
  }
}

TEST(CudaEmbedding, NoTokensIsNoWork) {
  CAROUSEL_REQUIRE_CUDA();
  const Bench bench(testing::kGpu, DType::kF32);
  const Tensor dweight = bench.wide_input({3, 4}, 1);
  const auto before = dweight.to_vector<float>();
  embedding_bwd(testing::kGpu, {bench.integers({}), bench.output({0, 4}), dweight});
  EXPECT_EQ(dweight.to_vector<float>(), before);
}

}  // namespace
}  // namespace carousel
