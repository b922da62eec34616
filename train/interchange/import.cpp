#include "train/interchange/import.h"

#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "data/id_tokenizer.h"
#include "data/sentencepiece_tokenizer.h"
#include "layers/xlstm_large.h"
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/directory.h"
#include "train/config/config.h"
#include "train/interchange/xlstm_large_reader.h"

namespace carousel {
namespace fs = std::filesystem;
namespace {

std::unique_ptr<Tokenizer> open_tokenizer(const std::string& path, std::int64_t vocab) {
  std::unique_ptr<Tokenizer> tokenizer;
  if (path.empty()) {
    return std::make_unique<IdTokenizer>(static_cast<std::int32_t>(vocab), std::nullopt, "import");
  }
  if (path.ends_with(".model")) {
    tokenizer = SentencePieceTokenizer::from_file(path);
  } else {
    tokenizer = load_tokenizer(path);
  }
  if (tokenizer->vocab_size() > vocab) {
    throw UsageError("the tokenizer '{}' has {} tokens, the model only {}; give the model's own",
                     path, tokenizer->vocab_size(), vocab);
  }
  return tokenizer;
}

// A configuration that loads; its data are for the user to set.
Config run_config(const XlstmLargeConfig& model, const fs::path& run,
                  const ImportOptions& options) {
  Config config;
  config.name = "imported";
  config.output_dir = run.string();
  config.steps = 1000;
  config.model.family = ModelFamily::kXlstmLarge;
  config.model.xlstm_large = model;
  config.model.vocab_size = model.vocab_size;
  config.data.train = {"set-data.train.txt"};
  config.data.tokenizer = options.tokenizer.empty() ? "none" : options.tokenizer;
  return config;
}

}  // namespace

void import_model(const fs::path& source, const fs::path& run, const ImportOptions& options) {
  const fs::path checkpoints = run / "checkpoints";
  if (!list_checkpoints(checkpoints).empty()) {
    throw UsageError("'{}' holds checkpoints already; give a new directory", run.string());
  }
  const ModelFiles files = ModelFiles::open(source);
  const XlstmLarge model(read_model_config(files));
  const auto tokenizer = open_tokenizer(options.tokenizer, model.vocab_size());
  const Config config = run_config(model.config(), run, options);
  CheckpointContents contents;
  contents.model = read_parameters(files, model.parameters(), DType::kF32);
  contents.config_json = hf_config_json(model.config());
  contents.tokenizer_json = tokenizer->to_json().dump();
  contents.trainer = {{"step", 0},
                      {"imported_from", fs::absolute(source).string()},
                      {"config_hash", fmt::format("{:016x}", config_hash(config))}};
  save_checkpoint(checkpoints, 0, contents);
  replace_file(run / "config.yaml", [&](OutputFile& file) { file.write(to_yaml(config)); });
  load_config((run / "config.yaml").string(), {});  // what it describes can be built
  log::info("imported {} parameters from '{}' to '{}'", model.parameters().count(), source.string(),
            run.string());
}

}  // namespace carousel
