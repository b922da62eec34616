#include "train/interchange/xlstm_large_reader.h"

#include <map>
#include <optional>
#include <set>

namespace carousel {
namespace {

// The feed-forward width of block 0, or nothing if neither layout's tensor is there.
std::optional<std::int64_t> ffn_width(const ModelFiles& files) {
  const std::string ffn = "backbone.blocks.0.ffn.";
  if (files.contains(ffn + "proj_up.weight")) {
    const Shape& shape = files.info(ffn + "proj_up.weight").shape;
    if (shape.rank() == 2 && shape[0] > 0) return shape[0];
  } else if (files.contains(ffn + "proj_up_gate_z.weight")) {
    const Shape& shape = files.info(ffn + "proj_up_gate_z.weight").shape;
    if (shape.rank() == 2 && shape[0] > 1) return shape[0] / 2;
  }
  return std::nullopt;
}

}  // namespace

XlstmLargeConfig read_model_config(const ModelFiles& files) {
  const MappedFile file(files.directory() / "config.json", ExitCode::kCheckpoint);
  const XlstmLargeConfig config = parse_hf_config(file.path(), std::string(file.text()));
  const auto width = ffn_width(files);
  return width ? with_ffn_width(config, *width) : config;
}

void check_tensors(const ModelFiles& files, const std::vector<StackedTensor>& wanted) {
  std::string problems;
  std::set<std::string> known;
  for (const StackedTensor& t : wanted) {
    known.insert(t.name);
    if (!files.contains(t.name)) {
      problems += fmt::format("\n  missing: {} {}", t.name, t.shape);
      continue;
    }
    const TensorInfo& info = files.info(t.name);
    if (info.shape != t.shape) {
      problems += fmt::format("\n  {}: shape {}, expected {}", t.name, info.shape, t.shape);
    }
    if (!is_floating(info.dtype)) {
      problems += fmt::format("\n  {}: {} is not a floating dtype", t.name, name_of(info.dtype));
    }
  }
  for (const std::string& name : files.names()) {
    if (!known.contains(name)) {
      problems += fmt::format("\n  unexpected: {} {}", name, files.info(name).shape);
    }
  }
  if (problems.empty()) return;
  throw CheckpointError("the tensors in '{}' are not those that its config.json describes:{}",
                        files.directory().string(), problems);
}

std::vector<NamedTensor> read_parameters(const ModelFiles& files, const ParameterSet& parameters,
                                         DType dtype) {
  const std::vector<std::string> names = files.names();
  const auto tensors =
      stack_parameters(parameters, detect_naming(names), detect_weight_mode(names));
  check_tensors(files, tensors);
  std::map<const Parameter*, Tensor> loaded;
  for (const StackedTensor& t : tensors) {
    const Tensor whole = files.load_as(t.name, dtype);
    std::int64_t row = 0;
    for (const Parameter* part : t.parts) {
      const std::int64_t rows = part->spec.shape[0];
      loaded[part] = whole.slice(row, row + rows);
      row += rows;
    }
  }
  std::vector<NamedTensor> out;
  for (const Parameter& p : parameters.all()) out.push_back({p.spec.name, loaded.at(&p)});
  return out;
}

}  // namespace carousel
