#include "core/ops/embedding.h"

#include <gtest/gtest.h>

#include "core/autograd/gradcheck.h"
#include "core/base/parallel.h"
#include "core/ops/elementwise.h"
#include "tests/support/errors.h"
#include "tests/support/precision.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::expect_error;
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

TEST(Embedding, GradientsAddUpInFloat32AndInTheOrderOfTheTokens) {
  const std::vector<std::int32_t> ids(300, 1);  // a bf16 sum would stall at 256
  const Tensor weight = to_dtype(Variable(random_normal<float>({3, 33}, 1)), DType::kBF16).value();
  const Tensor ones =
      to_dtype(Variable(Tensor::from<float>(std::vector<float>(300 * 33, 1.0f), {300, 33})),
               DType::kBF16)
          .value();
  const Variable leaf = Variable::leaf(weight, Tensor::zeros({3, 33}, DType::kF32));
  backward(embedding(ids_of(ids), leaf), ones);
  EXPECT_EQ(leaf.grad().slice(1, 2).to_vector<float>(), std::vector<float>(33, 300.0f));
  EXPECT_EQ(leaf.grad().slice(2, 3).to_vector<float>(), std::vector<float>(33, 0.0f));
}

TEST(Embedding, GradientsDoNotDependOnTheNumberOfThreads) {
  std::vector<std::int32_t> ids(501);
  for (std::size_t t = 0; t < ids.size(); ++t) ids[t] = static_cast<std::int32_t>(t * t % 7);
  const auto fn = [&](const std::vector<Variable>& in) {
    return std::vector<Variable>{embedding(ids_of(ids), in[0])};
  };
  const std::vector<Tensor> weight = {random_normal<float>({7, 65}, 1)};
  const int threads = num_threads();
  set_num_threads(1);
  const auto one = testing::values_and_gradients(fn, weight, DType::kF32);
  set_num_threads(3);
  const auto three = testing::values_and_gradients(fn, weight, DType::kF32);
  set_num_threads(threads);
  EXPECT_EQ(one, three);
}

TEST(Embedding, AnIdOutsideTheVocabularyIsNamed) {
  const Variable weight(random_normal<float>({5, 2}, 1));
  for (const std::int32_t bad : {5, -1}) {
    expect_error<DataError>(
        [&] {
          embedding(ids_of({1, bad}), weight);
        },
        {fmt::format("[embedding] token id {} at position 1 is outside the vocabulary of 5", bad)});
  }
  expect_error<DataError>(
      [&] {
        embedding(ids_of({0}), Variable(Tensor::zeros({0, 2}, DType::kF32)));
      },
      {"token id 0 at position 0 is outside the vocabulary of 0"});
}

TEST(Embedding, RefusesMismatchedOperandsAndNamesThem) {
  const Variable weight(random_normal<float>({5, 2}, 1));
  expect_error<UsageError>([&] { embedding(ids_of({1}), Variable(random_normal<float>({5}, 1))); },
                           {"[embedding] weight f32 (5) on cpu, expected (V, D)"});
  expect_error<UsageError>([&] { embedding(random_normal<float>({3}, 1), weight); },
                           {"[embedding] ids f32 (3) on cpu against weight f32 (5, 2) on cpu"});
}

}  // namespace
}  // namespace carousel
