#include "data/dataset.h"
#include "train/commands/commands.h"
#include "train/trainer.h"

namespace carousel {

void add_train(CLI::App& app) {
  struct Options {
    std::string config;
    std::vector<std::string> overrides;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "train", "Train the model of a configuration; resumes from the newest good checkpoint");
  command->add_option("config", options->config, "YAML configuration")->required();
  command->add_option("overrides", options->overrides, "key=value pairs, e.g. optim.lr=1.0e-3");
  command->footer("Example: carousel train configs/shakespeare_cpu.yaml data.train=input.txt");
  command->callback([options] {
    const Config config = load_config(options->config, options->overrides);
    check_held_out(config.data);
    Trainer(config).run();
  });
}

}  // namespace carousel
