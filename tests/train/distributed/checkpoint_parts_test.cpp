#include "train/distributed/checkpoint_parts.h"

#include <gtest/gtest.h>

#include "layers/xlstm_large.h"
#include "tests/support/ranks.h"
#include "tests/support/temp_dir.h"
#include "tests/train/checkpoint/support.h"
#include "train/checkpoint/background_save.h"
#include "train/distributed/data_parallel.h"
#include "train/weights.h"

namespace carousel {
namespace {

using testing::filled;
using testing::in_threads;

// What saves step `step` as this rank has to, its moments being `moments`.
std::function<void()> saver(comm::Communicator& c, const std::filesystem::path& directory,
                            std::int64_t step, const Tensor& moments) {
  const std::vector<NamedTensor> mine{{fmt::format("exp_avg.{}", c.rank()), moments}};
  if (c.rank() > 0) return [&c, step, mine] { write_checkpoint_part(c, step, mine, {}); };
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

TEST(DistCheckpointParts, TheFirstRankMakesTheWeightsWhole) {
  const testing::TempDir dir;
  const XlstmLargeConfig config{
      .embedding_dim = 32, .num_heads = 2, .num_blocks = 2, .vocab_size = 13};
  const auto results = in_threads(3, [&](comm::Communicator& c) -> std::string {
    XlstmLarge model(config);
    const ParameterSet& parameters = model.parameters();
    const DataParallel parallel(model.parameters(), c, {.zero_stage = 1, .bucket_bytes = 20000},
                                DType::kBF16);
    model.parameters().initialise(7);
    const auto mine = named_weights(parameters, parameters.master());
    if (c.rank() > 0) {
      write_checkpoint_part(c, 0, {{"exp_avg.x", filled({3}, 1)}}, mine);
      return "";
    }
    CheckpointContents contents = testing::marked_contents(0);
    const auto parts = std::make_shared<CheckpointParts>(c, 0);
    contents.peers = parts;
    contents.streamed_model = whole_weights(
        parameters, mine,
        [parts]() -> const std::vector<SafetensorsFile>& { return parts->weights(); });
    save_checkpoint(dir.path(), 0, contents);
    return "";
  });
  EXPECT_EQ(results, std::vector<std::string>(3, ""));
  XlstmLarge model(config);
  model.parameters().materialise(kCpu, DType::kF32);
  model.parameters().initialise(7);
  const SafetensorsFile saved = Checkpoint::open(dir / checkpoint_name(0)).model();
  EXPECT_EQ(saved.names().size(), model.parameters().all().size());
  for (const Parameter& p : model.parameters().all()) {
    EXPECT_EQ(saved.info(p.spec.name).shape, p.spec.shape);
    EXPECT_EQ(saved.load(p.spec.name).to_vector<float>(), p.master.to_vector<float>());
  }
  for (const std::string& name : testing::entries(dir / checkpoint_name(0))) {
    EXPECT_FALSE(name.ends_with(".part")) << name;
  }
}

TEST(DistCheckpointParts, AMissingPieceOfTheWeightsIsNamed) {
  ParameterSet parameters;
  parameters.add({"w", {4, 2}, init_constant(1)});
  parameters.materialise(kCpu, DType::kF32);
  const std::vector<SafetensorsFile> none;
  const auto sources =
      whole_weights(parameters, {{"w[0:3]", filled({3}, 1)}, {"w[4:8]", filled({4}, 1)}},
                    [&]() -> const std::vector<SafetensorsFile>& { return none; });
  try {
    sources[0].make();
    FAIL();
  } catch (const CheckpointError& e) {
    EXPECT_NE(std::string(e.what()).find("w: the pieces do not cover its 8 elements once"),
              std::string::npos)
        << e.what();
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
