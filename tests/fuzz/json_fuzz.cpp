// Feeds arbitrary bytes to the readers of JSON that comes with models: config.json of both families
// and the index of shards. They accept them or throw CheckpointError, and a configuration that they
// accept comes back unchanged from its own text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/base/error.h"
#include "tests/support/temp_dir.h"
#include "train/interchange/hf_config.h"
#include "train/interchange/model_files.h"
#include "train/interchange/xlstm_json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace carousel;
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const std::string written = hf_config_json(parse_hf_config("fuzz", text));
    if (hf_config_json(parse_hf_config("fuzz", written)) != written) std::abort();
  } catch (const CheckpointError&) {
  }
  try {
    const std::string written = xlstm_json(parse_xlstm_json("fuzz", text));
    if (xlstm_json(parse_xlstm_json("fuzz", written)) != written) std::abort();
  } catch (const CheckpointError&) {
  }
  static const testing::TempDir directory;
  directory.write(ModelFiles::kIndexFile, text);
  try {
    ModelFiles::open(directory / "");
  } catch (const CheckpointError&) {
  }
  return 0;
}
