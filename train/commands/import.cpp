#include "train/interchange/import.h"

#include "train/commands/commands.h"

namespace carousel {

void add_import(CLI::App& app) {
  struct Options {
    std::string source;
    std::string run;
    ImportOptions import;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("import", "Make a run directory from a published model of either family");
  command
      ->add_option("source", options->source, "directory with config.json and safetensors weights")
      ->required();
  command->add_option("run", options->run, "new run directory")->required();
  command->add_option("--tokenizer", options->import.tokenizer,
                      "SentencePiece .model or Carousel tokenizer.json (default: token ids)");
  command->footer(
      "Example: carousel import xlstm-7b runs/xlstm-7b\n"
      "To train it further: carousel train runs/xlstm-7b/config.yaml data.train=mine.txt");
  command->callback([options] { import_model(options->source, options->run, options->import); });
}

}  // namespace carousel
