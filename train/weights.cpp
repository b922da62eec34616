#include "train/weights.h"

#include <set>
#include <string>

namespace carousel {
namespace {

// Reads every tensor of `wanted` from the file, which must hold these and no others.
void load_exactly(const SafetensorsFile& file, std::vector<NamedTensor> wanted) {
  std::string problems;
  std::set<std::string> known;
  for (const NamedTensor& t : wanted) {
    known.insert(t.name);
    if (!file.contains(t.name)) {
      problems += fmt::format("\n  missing: {} {}", t.name, t.tensor.shape());
    } else if (file.info(t.name).shape != t.tensor.shape()) {
      problems += fmt::format("\n  {}: shape {}, expected {}", t.name, file.info(t.name).shape,
                              t.tensor.shape());
    }
  }
  for (const std::string& name : file.names()) {
    if (!known.contains(name)) {
      problems += fmt::format("\n  unexpected: {} {}", name, file.info(name).shape);
    }
  }
  if (!problems.empty()) {
    throw CheckpointError(
        "'{}' does not fit this model:{}\ncheck the model section of the configuration",
        file.path().string(), problems);
  }
  for (NamedTensor& t : wanted) file.read_into(t.name, t.tensor);
}

}  // namespace

std::vector<NamedTensor> named_weights(const ParameterSet& parameters) {
  std::vector<NamedTensor> out;
  for (const Parameter& p : parameters.all()) out.push_back({p.spec.name, p.master});
  return out;
}

std::vector<NamedTensor> named_moments(const AdamW& optimizer, const ParameterSet& parameters) {
  std::vector<NamedTensor> out;
  for (const Parameter& p : parameters.all()) {
    out.push_back({"exp_avg." + p.spec.name, optimizer.m().range(p.offset, p.spec.shape)});
    out.push_back({"exp_avg_sq." + p.spec.name, optimizer.v().range(p.offset, p.spec.shape)});
  }
  return out;
}

void load_weights(const SafetensorsFile& file, ParameterSet& parameters) {
  load_exactly(file, named_weights(parameters));
  parameters.refresh_compute();
}

void load_moments(const SafetensorsFile& file, const AdamW& optimizer,
                  const ParameterSet& parameters) {
  load_exactly(file, named_moments(optimizer, parameters));
}

}  // namespace carousel
