#include "data/tasks/task.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/base/error.h"
#include "core/kernels/cross_entropy.h"
#include "data/tasks/task_source.h"
#include "tests/support/errors.h"

namespace carousel {
namespace {

using testing::expect_error;
using Tokens = std::vector<std::int32_t>;

struct Sample {
  Tokens tokens;   // without padding
  Tokens targets;  // as long
};

/// The sequences of some batches, cut at the first padding that only padding follows.
std::vector<Sample> samples_of(const TaskConfig& config, TaskSplit split = TaskSplit::kTrain) {
  const TaskSource source(config, split, 50, 20, 7);
  std::vector<Sample> samples;
  for (std::int64_t b = 0; b < source.num_batches(); ++b) {
    const Batch batch = source.batch(b, 0, 50);
    const auto n = static_cast<std::size_t>(source.seq_len());
    const auto tokens = batch.tokens.to_vector<std::int32_t>();
    const auto targets = batch.targets.to_vector<std::int32_t>();
    for (std::size_t row = 0; row < 50; ++row) {
      Sample s;
      s.tokens.assign(&tokens[row * n], &tokens[row * n] + n);
      s.targets.assign(&targets[row * n], &targets[row * n] + n);
      for (std::size_t i = 0; i < n; ++i) {
        EXPECT_TRUE(0 <= s.tokens[i] && s.tokens[i] < source.vocab_size());
        EXPECT_TRUE(s.targets[i] == kIgnoreTarget ||
                    (0 < s.targets[i] && s.targets[i] < source.vocab_size()));
      }
      while (s.tokens.back() == kPadToken) {
        EXPECT_EQ(s.targets.back(), kIgnoreTarget);
        s.tokens.pop_back();
        s.targets.pop_back();
      }
      samples.push_back(std::move(s));
    }
  }
  return samples;
}

TaskConfig config_of(const std::string& name) {
  TaskConfig config;
  config.name = name;
  return config;
}

/// Expects one label, at the last token, as `label` computes it, and returns how often each occurs.
template <class Label>
std::map<std::int32_t, int> check_last_labels(const std::vector<Sample>& samples, Label&& label) {
  std::map<std::int32_t, int> counts;
  for (const Sample& s : samples) {
    Tokens want(s.tokens.size(), kIgnoreTarget);
    want.back() = label(s.tokens);
    EXPECT_EQ(s.targets, want);
    ++counts[want.back()];
  }
  return counts;
}

/// Every label of `n` is about equally frequent among 1000 samples (5 standard deviations).
void expect_balanced(const std::map<std::int32_t, int>& counts, int n) {
  EXPECT_EQ(std::ssize(counts), n);
  const double p = 1.0 / n;
  for (const auto& [label, count] : counts) {
    EXPECT_NEAR(count, 1000 * p, 5.0 * std::sqrt(1000 * p * (1 - p))) << label;
  }
}

TEST(ParityTask, LabelsAreTheParityOfTwos) {
  const auto counts = check_last_labels(samples_of(config_of("parity")), [](const Tokens& tokens) {
    int twos = 0;
    for (const auto t : tokens) twos += t == 2;
    return 1 + twos % 2;
  });
  expect_balanced(counts, 2);
}

TEST(EvenPairsTask, LabelsCountUnequalNeighbours) {
  const auto counts =
      check_last_labels(samples_of(config_of("even_pairs")), [](const Tokens& tokens) {
        int changes = 0;
        for (std::size_t i = 1; i < tokens.size(); ++i) changes += tokens[i] != tokens[i - 1];
        return changes % 2 == 0 ? 1 : 2;
      });
  expect_balanced(counts, 2);
}

TEST(CycleNavigationTask, LabelsAreTheFinalPosition) {
  TaskConfig config = config_of("cycle_navigation");
  config.modulus = 7;
  config.train_lengths = {30, 61};  // long enough for the positions to be almost uniform
  const auto counts = check_last_labels(samples_of(config), [](const Tokens& tokens) {
    int position = 0;
    for (const auto t : tokens) position += t == 2 ? 1 : t == 3 ? -1 : 0;
    return 4 + (position % 7 + 7) % 7;
  });
  expect_balanced(counts, 7);
}

/// Evaluates by recursive descent in exact arithmetic on residues: expr = term {± term},
/// term = number {× number}.
std::int32_t evaluate(const Tokens& tokens, std::int32_t m) {
  std::size_t i = 0;
  const auto term = [&] {
    std::int64_t value = tokens[i++] - 1;
    while (i < tokens.size() && tokens[i] == m + 3) {
      value = value * (tokens[i + 1] - 1) % m;
      i += 2;
    }
    return value;
  };
  std::int64_t value = term();
  while (i < tokens.size()) {
    const bool plus = tokens[i++] == m + 1;
    const std::int64_t next = term();
    value = ((plus ? value + next : value - next) % m + m) % m;
  }
  return static_cast<std::int32_t>(value);
}

TEST(ModularArithmeticTask, LabelsAreTheValueWithPrecedence) {
  EXPECT_EQ(evaluate({3, 6, 4, 8, 5}, 5), (2 + 3 * 4) % 5);  // the oracle itself
  for (const std::int64_t m : {2, 5, 11}) {
    TaskConfig config = config_of("modular_arithmetic");
    config.modulus = m;
    config.train_lengths = {1, 14};
    std::set<std::size_t> lengths;
    check_last_labels(samples_of(config), [&](const Tokens& tokens) {
      lengths.insert(tokens.size());
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        EXPECT_EQ(tokens[i] > m, i % 2 == 1);  // numbers and operators alternate
      }
      return 1 + evaluate(tokens, static_cast<std::int32_t>(m));
    });
    EXPECT_EQ(lengths, (std::set<std::size_t>{1, 3, 5, 7, 9, 11, 13}));
  }
}

TEST(AssociativeRecallTask, EveryQueryRecallsItsValue) {
  TaskConfig config = config_of("associative_recall");
  config.pairs = 5;
  config.vocab_size = 14;  // 6 keys, 7 values
  config.train_lengths = {15, 31};
  std::set<std::int32_t> keys_seen;
  std::set<std::int32_t> values_seen;
  for (const Sample& s : samples_of(config)) {
    std::map<std::int32_t, std::int32_t> value_of;
    for (std::size_t i = 0; i < 10; i += 2) {
      EXPECT_TRUE(value_of.emplace(s.tokens[i], s.tokens[i + 1]).second) << "keys are distinct";
      keys_seen.insert(s.tokens[i]);
      values_seen.insert(s.tokens[i + 1]);
    }
    std::size_t queries = 0;
    for (std::size_t i = 0; i < s.tokens.size(); ++i) {
      const bool query = i >= 10 && s.tokens[i] != kPadToken;
      EXPECT_EQ(s.targets[i], query ? value_of.at(s.tokens[i]) : kIgnoreTarget);
      queries += query;
    }
    EXPECT_EQ(queries, 5u);
  }
  EXPECT_EQ(keys_seen, (std::set<std::int32_t>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(values_seen, (std::set<std::int32_t>{7, 8, 9, 10, 11, 12, 13}));
}

TEST(TaskSource, DrawsEveryLengthOfTheSplit) {
  TaskConfig config = config_of("parity");
  config.train_lengths = {3, 9};
  config.val_lengths = {20, 20};
  std::set<std::size_t> lengths;
  for (const Sample& s : samples_of(config)) lengths.insert(s.tokens.size());
  EXPECT_EQ(lengths, (std::set<std::size_t>{3, 4, 5, 6, 7, 8, 9}));
  for (const Sample& s : samples_of(config, TaskSplit::kValidation)) {
    EXPECT_EQ(s.tokens.size(), 20u);
  }
}

TEST(TaskSource, IsAFunctionOfSeedStepAndSample) {
  TaskConfig config = config_of("parity");
  config.train_lengths = config.val_lengths = {30, 40};
  const auto tokens = [&](TaskSplit split, std::uint64_t seed, std::int64_t step, std::int64_t b) {
    return TaskSource(config, split, 8, 100, seed)
        .batch(step, b, b + 1)
        .tokens.to_vector<std::int32_t>();
  };
  const auto train = TaskSplit::kTrain;
  EXPECT_EQ(tokens(train, 1, 2, 3), tokens(train, 1, 2, 3));
  EXPECT_NE(tokens(train, 1, 2, 3), tokens(train, 2, 2, 3));
  EXPECT_NE(tokens(train, 1, 2, 3), tokens(train, 1, 3, 3));
  EXPECT_NE(tokens(train, 1, 2, 3), tokens(train, 1, 2, 4));
  EXPECT_NE(tokens(train, 1, 2, 3), tokens(TaskSplit::kValidation, 1, 2, 3));
  const TaskSource source(config, train, 8, BatchSource::kEndless, 1);
  const auto whole = source.batch(2, 0, 8).tokens.slice(3, 4).clone().to_vector<std::int32_t>();
  EXPECT_EQ(whole, tokens(train, 1, 2, 3));
}

TEST(TaskSource, CountsTargetsAndDescribesItself) {
  const TaskConfig config = config_of("parity");
  const TaskSource source(config, TaskSplit::kTrain, 16, BatchSource::kEndless, 1);
  EXPECT_EQ(source.seq_len(), 40);
  EXPECT_EQ(source.vocab_size(), 3);
  EXPECT_EQ(source.batch(1000, 4, 11).target_count, 7);
  EXPECT_FALSE(source.batch(0, 0, 1).reset.defined());
  EXPECT_EQ(source.describe(10),
            "task parity, lengths 3 to 40, vocabulary of 3, 160 sequences in 10 steps");
}

TEST(MakeTask, NamesTheUnsuitableKey) {
  const auto refuse = [](const TaskConfig& config, std::initializer_list<std::string> parts) {
    expect_error<UsageError>([&] { make_task(config); }, parts);
  };
  refuse(config_of("sorting"), {"data.task.name", "'sorting'", "associative_recall"});
  TaskConfig config = config_of("cycle_navigation");
  config.modulus = 1;
  refuse(config, {"data.task.modulus", "1", "[2, 65536]"});
  config = config_of("modular_arithmetic");
  config.modulus = 65537;
  refuse(config, {"data.task.modulus", "65537"});
  config = config_of("parity");
  config.train_lengths = {5, 3};
  refuse(config, {"data.task.train_lengths", "[5, 3]"});
  config = config_of("parity");
  config.val_lengths = {0, 3};
  refuse(config, {"data.task.val_lengths", "[0, 3]", "[1,"});
  config.val_lengths = {1, INT64_MAX};
  refuse(config, {"data.task.val_lengths"});
  config = config_of("associative_recall");
  config.pairs = 2;
  config.vocab_size = 4;
  refuse(config, {"data.task.vocab_size", "4", "[5, 65536]"});
  config.vocab_size = 5;
  config.train_lengths = {5, 40};
  refuse(config, {"data.task.train_lengths", "[6,"});
  config.pairs = 0;
  refuse(config, {"data.task.pairs", "0"});
}

}  // namespace
}  // namespace carousel
