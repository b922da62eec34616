#include "train/config/config.h"

#include "core/base/error.h"
#include "train/commands/commands.h"

namespace carousel {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  bool explain = false;
  bool keys = false;
};

void run(const Options& options) {
  if (options.keys) {
    fmt::print("{}", describe_keys());
    return;
  }
  if (options.config.empty()) {
    throw UsageError("config: name a YAML file, or ask for all keys with --keys");
  }
  const LoadedConfig loaded = load_config_with_origins(options.config, options.overrides);
  fmt::print("{}", options.explain ? explain(loaded) : to_yaml(loaded.config));
}

}  // namespace

void add_config(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("config", "Check a configuration and print it with all defaults");
  command->add_option("config", options->config, "YAML configuration");
  command->add_option("overrides", options->overrides,
                      "key=value pairs, later ones win; key=null takes a key out");
  command->add_flag("--explain", options->explain,
                    "also where each value came from, and what it means");
  command->add_flag("--keys", options->keys, "list all keys with their defaults, and do no more");
  command->footer(
      "Every error is reported at once, with its place. The output is a configuration itself.\n"
      "Example: carousel config configs/shakespeare_cpu.yaml optim.lr=1e-3 --explain");
  command->callback([options] { run(*options); });
}

}  // namespace carousel
