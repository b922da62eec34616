#include "core/ops/embedding.h"

#include <gtest/gtest.h>

#include "core/autograd/gradcheck.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::random_normal;

Tensor ids_of(const std::vector<std::int32_t>& ids) {
  return Tensor::from<std::int32_t>(ids, {static_cast<std::int64_t>(ids.size())});
}

TEST(Embedding, CopiesRowsAndSumsTheGradientsOfRepeatedIds) {
  const Tensor ids = ids_of({3, 0, 3, 3, 1}).reshape({5, 1});
  const auto fn = [&](const std::vector<Variable>& in) {
    return std::vector<Variable>{embedding(ids, in[0])};
  };
  const Tensor weight = random_normal<double>({5, 33}, 1);
  const auto result = gradcheck(fn, {weight});
  EXPECT_TRUE(result.ok) << result.report;
  const Tensor out = fn({Variable(weight)})[0].value();
  EXPECT_EQ(out.shape(), (Shape{5, 1, 33}));
  EXPECT_EQ(out.slice(2, 3).to_vector<double>(), weight.slice(3, 4).to_vector<double>());
}

TEST(Embedding, AnIdOutsideTheVocabularyIsNamed) {
  const Variable weight(random_normal<float>({5, 2}, 1));
  for (const std::int32_t bad : {5, -1}) {
    try {
      embedding(ids_of({1, bad}), weight);
      FAIL();
    } catch (const DataError& e) {
      EXPECT_EQ(std::string(e.what()),
                fmt::format("[embedding] token id {} at position 1 is outside the vocabulary of 5",
                            bad));
    }
  }
}

}  // namespace
}  // namespace carousel
