#include "train/distributed/checkpoint_parts.h"

#include <gtest/gtest.h>

#include "tests/support/ranks.h"
#include "tests/support/temp_dir.h"
#include "tests/train/checkpoint/support.h"
#include "train/checkpoint/background_save.h"

namespace carousel {
namespace {

using testing::filled;
using testing::in_threads;

// What saves step `step` as this rank has to, its moments being `moments`.
std::function<void()> saver(comm::Communicator& c, const std::filesystem::path& directory,
                            std::int64_t step, const Tensor& moments) {
  const std::vector<NamedTensor> mine{{fmt::format("exp_avg.{}", c.rank()), moments}};
  if (c.rank() > 0) return [&c, step, mine] { write_checkpoint_part(c, step, mine); };
  CheckpointContents contents = testing::marked_contents(static_cast<double>(step));
  contents.optimizer = mine;
  contents.optimizer_file = optimizer_part_name(0, c.world_size());
  contents.peers = std::make_shared<CheckpointParts>(c, step);
  return [=] { save_checkpoint(directory, step, contents); };
}

TEST(DistCheckpointParts, AreWrittenInThreadsBesideCollectives) {
  const testing::TempDir dir;
  const auto results = in_threads(3, [&](comm::Communicator& c) -> std::string {
    double sum = 0;
    for (std::int64_t step = 0; step < 3; ++step) {
      BackgroundSave save;
      save.start(step, saver(c, dir.path(), step, filled({1000 + c.rank()}, c.rank())));
      for (int i = 0; i < 20; ++i) {
        const Tensor one = filled({9}, 1);
        c.all_reduce(one, "ones").wait();
        c.barrier("between");
        sum += one.to_vector<float>()[8];
      }
      save.finish("the next step");
    }
    return std::to_string(static_cast<int>(sum));
  });
  EXPECT_EQ(results, std::vector<std::string>(3, "180"));
  for (std::int64_t step = 0; step < 3; ++step) {
    const Checkpoint checkpoint = Checkpoint::open(dir / checkpoint_name(step));
    const auto parts = checkpoint.optimizer();
    ASSERT_EQ(parts.size(), 3u);
    for (int r = 0; r < 3; ++r) {
      const auto& part = parts[static_cast<std::size_t>(r)];
      const auto moments = part.load(fmt::format("exp_avg.{}", r)).to_vector<float>();
      EXPECT_EQ(moments,
                std::vector<float>(1000 + static_cast<std::size_t>(r), static_cast<float>(r)));
    }
  }
}

TEST(DistCheckpointParts, OneThatFailsLeavesTheEarlierCheckpointAndIsNamed) {
  const testing::TempDir dir;
  const auto results = in_threads(2, [&](comm::Communicator& c) -> std::string {
    BackgroundSave save;
    save.start(0, saver(c, dir.path(), 0, filled({3}, 1)));
    save.finish("the next step");
    save.start(1, saver(c, dir.path(), 1, c.rank() == 1 ? Tensor() : filled({3}, 1)));
    try {
      save.finish("the test");
    } catch (const std::exception& e) {
      if (c.rank() == 1) c.abort("its part cannot be written");
      return e.what();
    }
    return "saved";
  });
  EXPECT_NE(results[0].find("rank 1 stopped: its part cannot be written"), std::string::npos)
      << results[0];
  EXPECT_NE(results[1].find("tensor 'exp_avg.1' is undefined"), std::string::npos) << results[1];
  EXPECT_EQ(testing::entries(dir.path()), std::vector{checkpoint_name(0)});
  EXPECT_TRUE(Checkpoint::open(dir / checkpoint_name(0)).has_optimizer());
}

}  // namespace
}  // namespace carousel
