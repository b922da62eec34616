#include "train/plan.h"

#include "data/dataset.h"
#include "train/commands/commands.h"

namespace carousel {
namespace {

// The vocabulary of the run, from the data only where the configuration leaves it open.
std::int64_t vocabulary(const Config& config) {
  if (config.model.vocab_size) return *config.model.vocab_size;
  return open_dataset(config.data, {.eval_batches = 1}).train->vocab_size();
}

}  // namespace

void add_plan(CLI::App& app) {
  struct Options {
    std::string config;
    std::vector<std::string> overrides;
    int processes = 1;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("plan", "Show parameters, FLOPs and memory of a run without starting it");
  command->add_option("config", options->config, "YAML configuration")->required();
  command->add_option("overrides", options->overrides, "key=value pairs");
  command->add_option("--processes", options->processes, "Processes that train together")
      ->check(CLI::Range(1, 1 << 20));
  command->footer(
      "Example: carousel plan configs/xlstm_large_400m.yaml --processes 2 "
      "distributed.zero_stage=1");
  command->callback([options] {
    const Config config = load_config(options->config, options->overrides);
    fmt::print("{}",
               to_string(make_plan(config, vocabulary(config), options->processes), config.steps));
  });
}

}  // namespace carousel
