#include "train/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <istream>
#include <nlohmann/json.hpp>
#include <string_view>

#include "train/metrics.h"

namespace carousel {
namespace {

constexpr std::size_t kMostRows = 100;
constexpr const char* kTraining = "#4c8bf5";
constexpr const char* kValidation = "#e8590c";

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 1.6rem 0 .3rem; }
progress { width: 100%; }
table { border-collapse: collapse; }
th, td { padding: .1rem 1.2rem .1rem 0; text-align: left; vertical-align: top; font-weight: normal; }
td { overflow-wrap: anywhere; }
th { opacity: .7; white-space: nowrap; }
.numbers th, .numbers td { text-align: right; font-variant-numeric: tabular-nums; }
.small { display: flex; flex-wrap: wrap; gap: 0 1rem; }
.small div { flex: 1 1 20rem; }
svg { width: 100%; height: auto; }
svg text { opacity: .7; }
details { margin: 1.6rem 0; }
pre { overflow-x: auto; }
)";

std::string escaped(std::string_view text) {
  constexpr std::string_view kSpecial = "&<>\"'";
  constexpr std::string_view kEntities[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
  std::string out;
  for (const char c : text) {
    const std::size_t i = kSpecial.find(c);
    out += i == std::string_view::npos ? std::string_view(&c, 1) : kEntities[i];
  }
  return out;
}

std::optional<double> number(const nlohmann::json& record, const char* key) {
  const auto found = record.find(key);
  if (found == record.end() || !found->is_number()) return std::nullopt;
  const auto value = found->get<double>();
  return std::abs(value) <= 1e30 ? std::optional(value) : std::nullopt;
}

void add_record(const nlohmann::json& record, RunHistory& history) {
  const auto step = record.at("step").get<std::int64_t>();
  const auto add = [&](const char* key, Curve& curve) {
    if (const auto value = number(record, key)) curve.push_back({step, *value});
  };
  add("loss", history.loss);
  add("lr", history.lr);
  add("tokens_per_second", history.tokens_per_second);
  if (const auto seconds = number(record, "seconds")) {
    history.seconds += *seconds;
    history.tokens += *seconds * number(record, "tokens_per_second").value_or(0.0);
  }
  if (const auto loss = number(record, "val_loss")) {
    history.evaluations.push_back({.step = step,
                                   .loss = *loss,
                                   .perplexity = number(record, "val_perplexity"),
                                   .accuracy = number(record, "val_accuracy"),
                                   .bits_per_byte = number(record, "val_bits_per_byte")});
  }
}

std::string row(std::string_view name, std::string_view value) {
  return fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", escaped(name), escaped(value));
}

std::string facts_table(const RunSummary& run, const RunHistory& history) {
  std::string table = "<table>\n";
  if (!history.loss.empty()) {
    table += row("training loss", fmt::format("{:.4f}", history.loss.back().value));
  }
  if (!history.evaluations.empty()) {
    const auto& all = history.evaluations;
    const auto best = std::ranges::min_element(all, {}, &RunHistory::Evaluation::loss);
    table += row("validation loss", fmt::format("{:.4f}, lowest {:.4f} at step {}", all.back().loss,
                                                best->loss, best->step));
  }
  if (history.seconds > 0.0) {
    table += row("trained on", fmt::format("{} tokens in {}", short_number(history.tokens, 3),
                                           format_clock(history.seconds)));
  }
  for (const auto& [name, value] : run.facts) table += row(name, value);
  return table + "</table>\n";
}

std::string loss_section(const RunHistory& history) {
  Curve validation;
  for (const auto& evaluation : history.evaluations) {
    validation.push_back({evaluation.step, evaluation.loss});
  }
  const std::string chart =
      svg_chart({{kTraining, history.loss}, {kValidation, std::move(validation)}}, {});
  if (chart.empty()) return "<p>There is no record of a step yet.</p>\n";
  const auto named = [](const char* color, const char* name) {
    return fmt::format("<span style=\"color: {}\">{}</span>", color, name);
  };
  std::string title = "Loss by step: " + named(kTraining, "training");
  if (!history.evaluations.empty()) title += ", " + named(kValidation, "validation");
  return fmt::format("<h2>{}</h2>\n{}", title, chart);
}

std::string small_chart(std::string_view title, const Curve& curve) {
  if (curve.empty()) return "";
  return fmt::format(
      "<div><h2>{}</h2>\n{}</div>\n", title,
      svg_chart({{kTraining, curve}}, {.width = 360, .height = 160, .from_zero = true}));
}

std::string evaluations_section(const std::vector<RunHistory::Evaluation>& all) {
  if (all.empty()) return "";
  std::string html = "<h2>Evaluations</h2>\n";
  if (all.size() > kMostRows) {
    html += fmt::format("<p>The newest {} of {}.</p>\n", kMostRows, all.size());
  }
  html +=
      "<table class=\"numbers\">\n<tr><th>step</th><th>loss</th><th>perplexity</th>"
      "<th>accuracy</th><th>bits/byte</th></tr>\n";
  const auto cell = [](const std::optional<double>& value, const char* format) {
    return value ? fmt::format(fmt::runtime(format), *value) : "";
  };
  for (std::size_t i = all.size(); i-- > all.size() - std::min(all.size(), kMostRows);) {
    const auto& e = all[i];
    const auto percent = e.accuracy ? std::optional(100.0 * *e.accuracy) : std::nullopt;
    html += fmt::format("<tr><td>{}</td><td>{:.4f}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                        e.step, e.loss, cell(e.perplexity, "{:.4g}"), cell(percent, "{:.1f} %"),
                        cell(e.bits_per_byte, "{:.3f}"));
  }
  return html + "</table>\n";
}

}  // namespace

void RunHistory::read(std::istream& metrics) {
  metrics.clear();
  for (std::string line; std::getline(metrics, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.contains("step") && json["step"].is_number_integer()) {
      add_record(json, *this);
    }
  }
}

std::string report_html(const RunSummary& run, const RunHistory& history) {
  const std::string name = escaped(run.name);
  std::string html = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n"
      "<title>{}: step {} of {}</title>\n<style>{}</style>\n</head>\n<body>\n",
      name, run.step, run.steps, kStyle);
  html += fmt::format(
      "<h1>{}</h1>\n<p>{}: step {} of {}, at {}</p>\n<progress max=\"{}\" "
      "value=\"{}\"></progress>\n",
      name, escaped(run.state), run.step, run.steps, escaped(run.time), run.steps, run.step);
  html += facts_table(run, history) + loss_section(history);
  html += "<div class=\"small\">\n" + small_chart("Learning rate", history.lr) +
          small_chart("Tokens a second", history.tokens_per_second) + "</div>\n";
  html += evaluations_section(history.evaluations);
  html += fmt::format(
      "<details>\n<summary>Configuration</summary>\n<pre>{}</pre>\n</details>\n</body>\n</html>\n",
      escaped(run.config));
  return html;
}

}  // namespace carousel
