#include "core/ops/linear.h"

#include <gtest/gtest.h>

#include "core/autograd/gradcheck.h"
#include "core/ops/elementwise.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::random_normal;
using testing::relative_error;

TEST(Linear, GradientsMatchDifferences) {
  const auto fn = [](const std::vector<Variable>& in) {
    return std::vector<Variable>{linear(in[0], in[1], in[2])};
  };
  const auto result =
      gradcheck(fn, {random_normal<double>({2, 3, 5}, 1), random_normal<double>({7, 5}, 2),
                     random_normal<double>({7}, 3)});
  EXPECT_TRUE(result.ok) << result.report;
}

TEST(Linear, Bf16IsWithinItsRounding) {
  const Tensor x = random_normal<float>({9, 33}, 1);
  const Tensor w = random_normal<float>({17, 33}, 2);
  const Variable wide = linear(Variable(x), Variable(w));
  const Variable narrow =
      linear(to_dtype(Variable(x), DType::kBF16), to_dtype(Variable(w), DType::kBF16));
  EXPECT_EQ(narrow.dtype(), DType::kBF16);
  EXPECT_LE(relative_error(narrow.value(), wide.value()), 0x1.0p-7);
}

TEST(Linear, RefusesMismatchedShapesWithBothNamed) {
  try {
    linear(Variable(random_normal<float>({2, 5}, 1)), Variable(random_normal<float>({7, 4}, 2)));
    FAIL();
  } catch (const UsageError& e) {
    EXPECT_STREQ(e.what(), "[linear] weight f32 (7, 4) on cpu against x f32 (2, 5) on cpu");
  }
}

TEST(Linear, PiecesAreTheWholeCut) {
  const Variable x(random_normal<float>({2, 3, 5}, 1));
  const Variable w(random_normal<float>({7, 5}, 2));
  const Variable b(random_normal<float>({7}, 3));
  const auto whole = linear(x, w, b).value().to_vector<float>();
  const auto pieces = linear(x, w, b, {4, 0, 3});
  ASSERT_EQ(pieces.size(), 3U);
  EXPECT_EQ(pieces[0].shape(), (Shape{2, 3, 4}));
  EXPECT_EQ(pieces[1].shape(), (Shape{2, 3, 0}));
  std::vector<float> joined;
  for (std::int64_t r = 0; r < 6; ++r) {
    for (const std::size_t k : {0U, 2U}) {
      const auto piece = pieces[k].value().to_vector<float>();
      const std::int64_t size = pieces[k].dim(-1);
      joined.insert(joined.end(), piece.begin() + r * size, piece.begin() + (r + 1) * size);
    }
  }
  EXPECT_LE(relative_error(Tensor::from<float>(joined, {42}), Tensor::from<float>(whole, {42})),
            1e-6);
}

TEST(Linear, GradientsOfPiecesMatchDifferencesEvenWhereOneIsNotUsed) {
  const std::vector<Tensor> in{random_normal<double>({2, 3, 5}, 1),
                               random_normal<double>({7, 5}, 2), random_normal<double>({7}, 3)};
  const auto fn = [](const std::vector<Variable>& v) {
    const auto pieces = linear(v[0], v[1], v[2], {2, 4, 1});
    // x is used before and after, so that its gradient is both started and joined.
    return std::vector<Variable>{scaled(pieces[1], 2.0), pieces[2], scaled(v[0], 3.0)};
  };
  const auto result = gradcheck(fn, in);
  EXPECT_TRUE(result.ok) << result.report;
}

TEST(Linear, RefusesPiecesThatDoNotAddUp) {
  const Variable x(random_normal<float>({2, 5}, 1));
  const Variable w(random_normal<float>({7, 5}, 2));
  const auto message = [&](const std::vector<std::int64_t>& sizes) -> std::string {
    try {
      linear(x, w, {}, sizes);
    } catch (const UsageError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message({3, 3}), "[linear] pieces (3, 3) of weight f32 (7, 5) on cpu");
  EXPECT_EQ(message({8, -1}), "[linear] a piece of size -1 of weight f32 (7, 5) on cpu");
}

}  // namespace
}  // namespace carousel
