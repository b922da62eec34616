#include "train/plan.h"

#include <gtest/gtest.h>

#include "core/base/parallel.h"
#include "core/kernels/matmul.h"
#include "layers/xlstm_large.h"
#include "tests/support/devices.h"
#include "tests/support/ranks.h"
#include "train/distributed/process_group.h"
#include "train/step.h"

namespace carousel {
namespace {

Config small_config() {
  Config c;
  c.steps = 10;
  c.model.xlstm_large.embedding_dim = 64;
  c.model.xlstm_large.num_heads = 2;
  c.model.xlstm_large.num_blocks = 2;
  c.data.seq_len = 48;
  c.data.batch_size = 6;
  c.micro_batch_size = 4;
  return c;
}

std::size_t used_by(const MemoryStats& memory, Role role) {
  return memory.peak[static_cast<std::size_t>(role)];
}

TEST(Plan, PredictsWhatARealStepAllocates) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    for (const bool recompute : {false, true}) {
      Config config = small_config();
      config.precision = precision;
      config.recompute = recompute;
      const Plan plan = make_plan(config, 100);

      drop_memory_cache(kCpu);  // reused blocks may be larger than what is asked for
      reset_peak_memory(kCpu);
      const std::size_t before = memory_stats(kCpu).total_used;
      XlstmLargeConfig c = config.model.xlstm_large;
      c.vocab_size = 100;
      XlstmLarge model(c);
      EXPECT_EQ(plan.parameters, model.parameters().count());
      model.parameters().materialise(kCpu, precision);
      model.parameters().initialise(1);
      AdamW optimizer(model.parameters(), config.optim);
      Batch batch;
      {
        const RoleScope role(Role::kData);
        batch.tokens = Tensor::zeros({6, 48}, DType::kI32);
        batch.targets = Tensor::zeros({6, 48}, DType::kI32);
      }
      batch.target_count = 6 * 48;
      run_step(model, optimizer, batch, {.micro_batch_size = 4, .recompute = recompute});
      const auto real = static_cast<double>(memory_stats(kCpu).total_peak - before);
      // Scratch inside CPU kernels (bf16 widened for the BLAS) is not part of the plan.
      const double margin = precision == DType::kF32 ? 0.03 : 0.25;
      EXPECT_NEAR(static_cast<double>(plan.memory.total_peak), real, margin * real)
          << name_of(precision) << (recompute ? " recompute" : "");
    }
  }
}

TEST(DistPlan, PredictsWhatEachOfSeveralProcessesAllocates) {
  std::array<std::size_t, 2> parameters{};  // bytes, by zero_stage
  for (const std::int64_t zero_stage : {0, 1}) {
    Config config = small_config();
    config.precision = DType::kBF16;
    config.model.xlstm_large.embedding_dim = 128;
    config.data.batch_size = 8;
    config.micro_batch_size = 2;
    config.distributed.zero_stage = zero_stage;
    const int world = 4;
    const Plan plan = make_plan(config, 500, world);
    parameters[static_cast<std::size_t>(zero_stage)] = used_by(plan.memory, Role::kParameters);
    const auto ranks = testing::in_processes(world, [&](comm::Communicator& c) {
      set_num_threads(1);
      drop_memory_cache(kCpu);
      reset_peak_memory(kCpu);
      XlstmLargeConfig model_config = config.model.xlstm_large;
      model_config.vocab_size = 500;
      XlstmLarge model(model_config);
      DataParallel parallel(model.parameters(), c, parallel_options(config), config.precision);
      model.parameters().initialise(1);
      AdamW optimizer(model.parameters(), config.optim, parallel.owned());
      Batch batch;
      batch.tokens = Tensor::zeros({2, 48}, DType::kI32);
      batch.targets = Tensor::zeros({2, 48}, DType::kI32);
      batch.target_count = 2 * 48;
      run_step(model, optimizer, batch, {.parallel = &parallel});
      const MemoryStats real = memory_stats(kCpu);
      std::string sizes;
      for (const Role role : {Role::kParameters, Role::kGradients, Role::kOptimizer}) {
        sizes += fmt::format("{} ", used_by(real, role));
      }
      return sizes;
    });
    std::string planned;
    for (const Role role : {Role::kParameters, Role::kGradients, Role::kOptimizer}) {
      planned += fmt::format("{} ", used_by(plan.memory, role));
    }
    EXPECT_EQ(ranks, std::vector<std::string>(world, planned));
  }
  // Three quarters of the float32 masters: 4 of the 6 bytes of nearly all parameters.
  EXPECT_NEAR(static_cast<double>(parameters[1]) / static_cast<double>(parameters[0]), 0.5, 0.01);
}

TEST(DistPlan, RefusesABatchThatDoesNotDivide) {
  EXPECT_THROW(make_plan(small_config(), 100, 4), UsageError);
}

TEST(Plan, AGpuSavesItsOwnKindOfStates) {
  Config config = small_config();
  config.precision = DType::kBF16;
  config.device = DeviceChoice::kUseCuda;
  const Plan gpu = make_plan(config, 100);
  config.device = DeviceChoice::kUseCpu;
  const Plan cpu = make_plan(config, 100);
  const auto activations = [](const Plan& plan) {
    return plan.memory.peak[static_cast<std::size_t>(Role::kActivations)];
  };
  EXPECT_LT(activations(gpu), activations(cpu));
  EXPECT_NE(to_string(gpu, 10).find("on the GPU"), std::string::npos);
  EXPECT_EQ(to_string(cpu, 10).find("on the GPU"), std::string::npos);
}

// The states that the cell's kernels hold while a block's backward runs: dC, and at head sizes that
// Hopper's kernels do not take what its rounding leaves.
TEST(Plan, CountsTheStatesThatAGpusKernelsHold) {
  Config config = small_config();
  config.model.family = ModelFamily::kXlstm;
  config.model.xlstm.embedding_dim = 192;
  config.model.xlstm.num_blocks = 2;
  config.precision = DType::kBF16;
  const auto states = [&](std::int64_t heads, DeviceChoice device) {
    config.model.xlstm.mlstm.num_heads = heads;
    config.device = device;
    return used_by(make_plan(config, 100).memory, Role::kWorkspace);
  };
  const std::size_t sequences = 4;
  EXPECT_EQ(states(2, DeviceChoice::kUseCuda) - kCudaMatmulScratch, sequences * 2 * 192 * 192 * 2);
  EXPECT_EQ(states(1, DeviceChoice::kUseCuda) - kCudaMatmulScratch,
            2 * (sequences * 1 * 384 * 384 * 2));
  EXPECT_LT(states(1, DeviceChoice::kUseCpu), 384 * 384);
}

TEST(CudaPlan, PredictsWhatTrainingHoldsWithinThreePercent) {
  CAROUSEL_REQUIRE_CUDA();
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    for (const bool recompute : {false, true}) {
      Config config = small_config();
      config.device = DeviceChoice::kUseCuda;
      config.precision = precision;
      config.recompute = recompute;
      config.model.xlstm_large.embedding_dim = 256;
      config.model.xlstm_large.num_blocks = 6;
      config.data.seq_len = 512;
      config.data.batch_size = 24;
      config.micro_batch_size = 12;
      const Plan plan = make_plan(config, 10000);

      const Tensor one = Tensor::zeros({8, 8}, precision, testing::kGpu);
      matmul(testing::kGpu, {.a = one, .b = one, .out = empty_like(one)});  // has its scratch now
      drop_memory_cache(testing::kGpu);
      const std::size_t before = memory_stats(testing::kGpu).reserved - kCudaMatmulScratch;
      XlstmLargeConfig c = config.model.xlstm_large;
      c.vocab_size = 10000;
      XlstmLarge model(c);
      model.parameters().materialise(testing::kGpu, precision);
      model.parameters().initialise(1);
      AdamW optimizer(model.parameters(), config.optim);
      Batch batch;
      batch.tokens = Tensor::zeros({24, 512}, DType::kI32);
      batch.targets = Tensor::zeros({24, 512}, DType::kI32);
      batch.target_count = 24 * 512;
      for (const std::int64_t step : {1, 2}) {
        run_step(model, optimizer, batch,
                 {.step = step, .micro_batch_size = 12, .recompute = recompute});
      }
      const auto real = static_cast<double>(memory_stats(testing::kGpu).reserved - before);
      EXPECT_NEAR(static_cast<double>(plan.memory.reserved), real, 0.03 * real)
          << name_of(precision) << (recompute ? " recompute" : "");
    }
  }
}

TEST(Plan, TwelveBillionParametersCostNothingToPlan) {
  Config config;
  config.model.xlstm_large.num_blocks = 56;
  config.data.seq_len = 8192;
  config.data.batch_size = 8;
  config.precision = DType::kBF16;
  const Plan plan = make_plan(config, 50304);
  EXPECT_GT(plan.parameters, 10'000'000'000);
  EXPECT_GT(plan.memory.peak[static_cast<std::size_t>(Role::kOptimizer)],
            8u * static_cast<std::size_t>(plan.parameters));
  EXPECT_EQ(memory_stats(kMeta).total_used, 0u);
  EXPECT_NE(to_string(plan, 10).find("optimizer"), std::string::npos);
}

}  // namespace
}  // namespace carousel
