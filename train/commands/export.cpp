#include "train/interchange/export.h"

#include "train/commands/commands.h"
#include "train/run_directory.h"

namespace carousel {

void add_export(CLI::App& app) {
  struct Options {
    std::string run;
    std::string directory;
    double shard_gb = 5.0;
    ExportOptions write;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "export", "Write a model as transformers (family xlstm_large) or the NX-AI package loads it");
  command->add_option("run", options->run, "run directory, or one of its checkpoints")->required();
  command->add_option("directory", options->directory, "new model directory")->required();
  const std::map<std::string, DType> dtypes{
      {"f32", DType::kF32}, {"bf16", DType::kBF16}, {"f16", DType::kF16}};
  command->add_option("--dtype", options->write.dtype, "f32, bf16 or f16 (default: f32)")
      ->transform(CLI::CheckedTransformer(dtypes).description(""));
  const std::map<std::string, WeightMode> modes{{"single", WeightMode::kSingle},
                                                {"fused", WeightMode::kFused}};
  command
      ->add_option("--weight-mode", options->write.layout.mode, "single or fused (default: single)")
      ->transform(CLI::CheckedTransformer(modes).description(""));
  const std::map<std::string, Naming> namings{{"hf", Naming::kHf}, {"nxai", Naming::kNxai}};
  command->add_option("--naming", options->write.layout.naming, "hf or nxai (default: hf)")
      ->transform(CLI::CheckedTransformer(namings).description(""));
  const std::map<std::string, SlstmLayout> layouts{{"vanilla", SlstmLayout::kVanilla},
                                                   {"cuda", SlstmLayout::kCuda}};
  command
      ->add_option("--slstm-layout", options->write.layout.slstm,
                   "family xlstm: vanilla or cuda (default: vanilla)")
      ->transform(CLI::CheckedTransformer(layouts).description(""));
  command->add_option("--shard-gb", options->shard_gb, "size at which a new file begins, in GB")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->footer("Example: carousel export runs/quickstart exported --dtype bf16");
  command->callback([options] {
    options->write.shard_bytes = static_cast<std::uint64_t>(options->shard_gb * 1e9);
    export_model(open_checkpoint(options->run), options->directory, options->write);
  });
}

}  // namespace carousel
