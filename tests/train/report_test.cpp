#include "train/report.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using testing::TempDir;

RunHistory history_of(const std::string& lines) {
  std::istringstream in(lines);
  RunHistory history;
  history.read(in);
  return history;
}

RunSummary summary() {
  return {.name = "tiny",
          .state = "training",
          .step = 3,
          .steps = 74,
          .time = "2025-01-31T12:00:00Z",
          .facts = {{"device", "cpu"}},
          .config = "name: tiny\n"};
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

const std::string kRecords =
    R"({"grad_norm":1.5,"loss":4.5,"lr":0.001,"seconds":2.0,"step":1,"tokens_per_second":1000.0}
{"grad_norm":1.5,"loss":4.25,"lr":0.002,"seconds":60.0,"step":2,"tokens_per_second":2000.0}
{"step":2,"val_accuracy":0.125,"val_bits_per_byte":3.5,"val_loss":4.4,"val_perplexity":81.45}
{"checkpoint_stall_ms":12.0,"step":2}
{"loss":4.125,"lr":0.003,"seconds":1.0,"step":3,"tokens_per_second":1000.0}
{"step":3,"val_accuracy":0.25,"val_loss":4.5,"val_perplexity":90.0}
)";

TEST(RunHistory, SortsRecordsByWhatTheyTell) {
  const RunHistory history = history_of(kRecords);
  EXPECT_EQ(history.loss, (Curve{{1, 4.5}, {2, 4.25}, {3, 4.125}}));
  EXPECT_EQ(history.lr, (Curve{{1, 0.001}, {2, 0.002}, {3, 0.003}}));
  EXPECT_EQ(history.tokens_per_second, (Curve{{1, 1000.0}, {2, 2000.0}, {3, 1000.0}}));
  EXPECT_EQ(history.seconds, 63.0);
  EXPECT_EQ(history.tokens, 123000.0);
  ASSERT_EQ(history.evaluations.size(), 2u);
  EXPECT_EQ(history.evaluations[0].step, 2);
  EXPECT_EQ(history.evaluations[0].loss, 4.4);
  EXPECT_EQ(history.evaluations[0].perplexity, 81.45);
  EXPECT_EQ(history.evaluations[0].accuracy, 0.125);
  EXPECT_EQ(history.evaluations[0].bits_per_byte, 3.5);
  EXPECT_EQ(history.evaluations[1].bits_per_byte, std::nullopt);
}

TEST(RunHistory, SkipsBadLinesAndOddNumbers) {
  const RunHistory history = history_of(
      "\nnot json\n[1]\n3\n{\"loss\":1}\n{\"step\":\"1\",\"loss\":1}\n{\"step\":1.5,\"loss\":1}\n" +
      std::string("\0\xff\n", 3) +
      "{\"step\":1,\"loss\":null}\n{\"step\":2,\"loss\":\"2\"}\n{\"step\":3,\"loss\":1e31}\n"
      "{\"step\":4,\"loss\":1e999}\n{\"step\":5,\"loss\":5,\"lr\":[1]}\n{\"step\":6,\"lo");
  EXPECT_EQ(history.loss, (Curve{{5, 5.0}}));
  EXPECT_TRUE(history.lr.empty());
  EXPECT_TRUE(history.evaluations.empty());
}

TEST(RunHistory, GoesOnReadingAFileThatGrows) {
  const TempDir dir;
  const std::string path = dir.write("metrics.jsonl", "{\"step\":1,\"loss\":3}\n");
  std::ifstream in(path);
  RunHistory history;
  history.read(in);
  history.read(in);
  EXPECT_EQ(history.loss, (Curve{{1, 3.0}}));
  std::ofstream(path, std::ios::app) << "{\"step\":2,\"loss\":2}\n{\"step\":3,\"loss\":1}\n";
  history.read(in);
  EXPECT_EQ(history.loss, (Curve{{1, 3.0}, {2, 2.0}, {3, 1.0}}));
}

TEST(Report, TellsHowTheRunStands) {
  const std::string html = report_html(summary(), history_of(kRecords));
  for (const char* part :
       {"<!doctype html>", "<title>tiny: step 3 of 74</title>", "<h1>tiny</h1>",
        "<p>training: step 3 of 74, at 2025-01-31T12:00:00Z</p>", "max=\"74\" value=\"3\"",
        "<tr><th>training loss</th><td>4.1250</td></tr>",
        "<tr><th>validation loss</th><td>4.5000, lowest 4.4000 at step 2</td></tr>",
        "<tr><th>trained on</th><td>123k tokens in 0:01:03</td></tr>",
        "<tr><th>device</th><td>cpu</td></tr>", "<pre>name: tiny\n</pre>",
        "<title>step 2: 4.25</title>", "<title>step 2: 4.4</title>", "<title>step 2: 0.002</title>",
        "<title>step 2: 2000</title>",
        "<tr><td>2</td><td>4.4000</td><td>81.45</td><td>12.5 %</td><td>3.500</td></tr>",
        "<tr><td>3</td><td>4.5000</td><td>90</td><td>25.0 %</td><td></td></tr>"}) {
    EXPECT_TRUE(has(html, part)) << part << " is not in " << html;
  }
  EXPECT_LT(html.find("<td>3</td><td>4.5000"), html.find("<td>2</td><td>4.4000"));  // newest first
  // It needs nothing else: no script, and no address of anything.
  for (const char* part : {"<script", "<link", "<img", "http", "url(", "@import"}) {
    EXPECT_FALSE(has(html, part)) << part;
  }
}

TEST(Report, EscapesAllText) {
  RunSummary run = summary();
  const std::string evil = "</pre><script>alert('1' & \"2\")</script>";
  const std::string good =
      "&lt;/pre&gt;&lt;script&gt;alert(&#39;1&#39; &amp; &quot;2&quot;)&lt;/script&gt;";
  run.name = evil;
  run.state = evil;
  run.time = evil;
  run.facts = {{evil, evil}};
  run.config = evil;
  const std::string html = report_html(run, history_of(kRecords));
  EXPECT_FALSE(has(html, "<script"));
  for (const std::string& place :
       {"<title>" + good + ": step", "<h1>" + good + "</h1>",
        "<p>" + good + ": step 3 of 74, at " + good + "</p>",
        "<tr><th>" + good + "</th><td>" + good + "</td></tr>", "<pre>" + good + "</pre>"}) {
    EXPECT_TRUE(has(html, place)) << place << " is not in " << html;
  }
}

TEST(Report, ARunWithoutRecordsHasNoCurves) {
  const std::string html = report_html(summary(), {});
  EXPECT_TRUE(has(html, "There is no record of a step yet."));
  EXPECT_TRUE(html.ends_with("</html>\n"));
  for (const char* part : {"<svg", "Learning rate", "Evaluations", "training loss", "trained on"}) {
    EXPECT_FALSE(has(html, part)) << part;
  }
}

TEST(Report, ARunWithoutValidationHasOneLossCurve) {
  const std::string html = report_html(summary(), history_of("{\"step\":1,\"loss\":3}\n"));
  EXPECT_TRUE(has(html, "<svg"));
  EXPECT_FALSE(has(html, "alidation"));
  EXPECT_FALSE(has(html, "Evaluations"));
}

TEST(Report, StaysSmallHoweverLongTheRun) {
  RunHistory history;
  for (std::int64_t step = 1; step <= 100'000; ++step) {
    const double x = static_cast<double>(step * 7919 % 1000);
    history.loss.push_back({step, x});
    history.lr.push_back({step, x});
    history.tokens_per_second.push_back({step, x});
    history.evaluations.push_back({.step = step, .loss = x + 1.0});
  }
  const std::string html = report_html(summary(), history);
  EXPECT_LT(html.size(), 100'000u);
  EXPECT_TRUE(has(html, "The newest 100 of 100000."));
  EXPECT_TRUE(has(html, "<tr><td>99901</td>"));
  EXPECT_FALSE(has(html, "<tr><td>99900</td>"));
}

}  // namespace
}  // namespace carousel
