#include "train/run_records.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/file.h"
#include "core/base/log.h"
#include "train/config/value.h"
#include "train/environment.h"

namespace carousel {

Facts run_facts(const Config& config, const LanguageModel& model, const Dataset& dataset,
                Device device, int processes) {
  const std::string name = backend_for(device.type).name(device);
  Facts facts{
      {"model", fmt::format("{}, {} parameters", *format_value(config.model.family),
                            model.parameters().count())},
      {"device", fmt::format("{}, {}", to_string(device), name.empty() ? cpu_name() : name)},
      {"precision", std::string(name_of(config.precision))}};
  if (processes > 1) facts.emplace_back("processes", std::to_string(processes));
  facts.emplace_back("training data", dataset.train->describe(config.steps));
  if (dataset.validation != nullptr) {
    facts.emplace_back("validation data", dataset.validation->describe());
  }
  return facts;
}

RunRecords::RunRecords(const Config& config, std::int64_t resumed_step, Facts facts)
    : directory_(config.output_dir),
      summary_{.name = config.name,
               .steps = config.steps,
               .facts = std::move(facts),
               .config = to_yaml(config)},
      metrics_(directory_ / "metrics.jsonl", resumed_step),
      written_(directory_ / "metrics.jsonl") {
  if (config.logging.tensorboard) events_.emplace(directory_ / "tensorboard", resumed_step);
}

void RunRecords::write(const nlohmann::json& record) {
  metrics_.write(record);
  if (events_) events_->write(record);
}

void RunRecords::report(const std::string& state, std::int64_t step) {
  history_.read(written_);
  summary_.state = state;
  summary_.step = step;
  summary_.steps = std::max(summary_.steps, step);  // a run that went further before
  summary_.time = now_text();
  try {
    replace_file(directory_ / "report.html",
                 [&](OutputFile& file) { file.write(report_html(summary_, history_)); });
  } catch (const Error& e) {
    log::warn("no new report: {}", e.what());
  }
}

}  // namespace carousel
