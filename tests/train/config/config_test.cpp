#include "train/config/config.h"

#include <algorithm>
#include <set>

#include "tests/train/config/support.h"
#include "train/config/schema.h"

namespace carousel {
namespace {

using testing::kMinimal;
using testing::kNeurips;
using testing::load_text;
using Lines = std::vector<std::string>;

TEST(Config, DefaultsAreTheMembersInitialValues) {
  const Config config = load_text(kMinimal).config;
  const Config defaults;
  EXPECT_EQ(config.name, "tiny");
  EXPECT_EQ(config.steps, 100);
  EXPECT_EQ(config.model.xlstm_large.embedding_dim, 128);
  EXPECT_EQ(config.model.vocab_size, std::nullopt);
  EXPECT_EQ(config.data.train, Lines{"corpus.txt"});
  EXPECT_FALSE(config.data.val.given());
  EXPECT_EQ(config.optim.lr, defaults.optim.lr);
  EXPECT_EQ(config.schedule.decay_steps, std::nullopt);
  EXPECT_EQ(config.output_dir, "runs/tiny");
  EXPECT_FALSE(config.logging.tensorboard);
}

TEST(Config, EveryKindOfValueIsRead) {
  const Config config = load_text(
                            "name: all\n"
                            "seed: 7\n"
                            "steps: +200\n"
                            "output_dir: /tmp/elsewhere\n"
                            "model:\n"
                            "  family: xlstm\n"
                            "  vocab_size: 300\n"
                            "  embedding_dim: 64\n"
                            "  num_blocks: 3\n"
                            "  slstm_at: [0, 2]\n"
                            "  bias: true\n"
                            "  slstm: {num_heads: 2}\n"
                            "data:\n"
                            "  train: [a.txt, \"b c.txt\"]\n"
                            "  val: [v.txt]\n"
                            "  tokenizer: ./spm.model\n"
                            "  document_token: 3\n"
                            "optim: {lr: 1e-3, betas: [.5, 0.75]}\n"
                            "schedule: {type: wsd, decay_steps: 20}\n"
                            "precision: bf16\n"
                            "device: cpu\n"
                            "micro_batch_size: 4\n"
                            "sample: {every: 5, prompt: \"Once\\nupon\"}\n"
                            "logging: {every: 3, tensorboard: true}\n")
                            .config;
  EXPECT_EQ(config.seed, 7);
  EXPECT_EQ(config.steps, 200);
  EXPECT_EQ(config.output_dir, "/tmp/elsewhere");
  EXPECT_EQ(config.model.family, ModelFamily::kXlstm);
  EXPECT_EQ(config.model.vocab_size, 300);
  EXPECT_EQ(config.model.xlstm.slstm_at, (std::vector<std::int64_t>{0, 2}));
  EXPECT_TRUE(config.model.xlstm.bias);
  EXPECT_EQ(config.model.xlstm.slstm.num_heads, 2);
  EXPECT_EQ(config.data.train, (Lines{"a.txt", "b c.txt"}));
  EXPECT_EQ(config.data.val.files, Lines{"v.txt"});
  EXPECT_EQ(config.data.tokenizer, "./spm.model");
  EXPECT_EQ(config.data.document_token, 3);
  EXPECT_EQ(config.optim.lr, 1e-3);
  EXPECT_EQ(config.optim.beta1, 0.5);
  EXPECT_EQ(config.optim.beta2, 0.75);
  EXPECT_EQ(config.schedule.type, ScheduleType::kWsd);
  EXPECT_EQ(config.schedule.decay_steps, 20);
  EXPECT_EQ(config.precision, DType::kBF16);
  EXPECT_EQ(config.device, DeviceChoice::kUseCpu);
  EXPECT_EQ(config.micro_batch_size, 4);
  EXPECT_EQ(config.sample.prompt, "Once\nupon");
  EXPECT_EQ(config.logging.every, 3);
  EXPECT_TRUE(config.logging.tensorboard);
}

TEST(Config, ValidationIsAFractionOrPaths) {
  EXPECT_EQ(load_text(kMinimal, {"data.val=0.25"}).config.data.val.fraction, 0.25);
  EXPECT_EQ(load_text(kMinimal, {"data.val=v.txt"}).config.data.val.files, Lines{"v.txt"});
  EXPECT_EQ(load_text(kMinimal, {"data.val='0.25'"}).config.data.val.files, Lines{"0.25"});
  EXPECT_EQ(load_text(kMinimal, {"data.val=null"}).config.data.val.given(), false);
}

TEST(Config, LaterSourcesWin) {
  const std::string yaml = kMinimal + "optim: {lr: 1e-2, clip: 0.5}\n";
  const LoadedConfig loaded = load_text(yaml, {"optim.lr=1e-4", "seed=3", "optim.lr=2e-4"});
  EXPECT_EQ(loaded.config.optim.lr, 2e-4);
  EXPECT_EQ(loaded.config.optim.clip, 0.5);
  EXPECT_EQ(loaded.config.seed, 3);
  EXPECT_EQ(loaded.origins.at("optim.lr"), "override 'optim.lr=2e-4'");
  EXPECT_EQ(loaded.origins.at("optim.clip"), "run.yaml:5");
  EXPECT_EQ(loaded.origins.at("optim.betas"), "default");
  EXPECT_EQ(loaded.origins.at("output_dir"), "from name");
}

TEST(Config, NullTakesAKeyOut) {
  const std::string yaml = kMinimal + "micro_batch_size: 8\noptim: {lr: 5}\n";
  const LoadedConfig loaded = load_text(yaml, {"micro_batch_size=null", "optim.lr=~"});
  EXPECT_EQ(loaded.config.micro_batch_size, std::nullopt);
  EXPECT_EQ(loaded.config.optim.lr, Config{}.optim.lr);
  EXPECT_EQ(loaded.origins.at("optim.lr"), "default");
  EXPECT_EQ(load_text(kMinimal + "micro_batch_size: null\n").config.micro_batch_size, std::nullopt);
}

TEST(Config, AliasesStandForTheirAnchors) {
  const Config config = load_text(
                            "name: &n aliased\nsteps: 10\noutput_dir: *n\n"
                            "model: {family: xlstm_large, embedding_dim: &d 128, num_heads: 4, "
                            "num_blocks: 2}\n"
                            "data: {train: &files [a.txt, b.txt], val: *files, seq_len: *d}\n")
                            .config;
  EXPECT_EQ(config.output_dir, "aliased");
  EXPECT_EQ(config.data.seq_len, 128);
  EXPECT_EQ(config.data.val.files, (Lines{"a.txt", "b.txt"}));
}

TEST(Config, WindowsLineEndsAndAByteOrderMarkAreFine) {
  std::string yaml = kMinimal;
  for (std::size_t at = 0; (at = yaml.find('\n', at)) != std::string::npos; at += 2) {
    yaml.insert(at, 1, '\r');
  }
  yaml = std::string("\xef\xbb\xbf").append(yaml);
  EXPECT_EQ(to_yaml(load_text(yaml).config), to_yaml(load_text(kMinimal).config));
}

TEST(Config, LengthsOfATaskReachTheModel) {
  const Config config =
      load_text(kNeurips, {"data.train=null", "data.task.name=parity",
                           "data.task.train_lengths=[3, 30]", "data.task.val_lengths=[30, 99]"})
          .config;
  EXPECT_EQ(config.data.seq_len, 30);
  EXPECT_EQ(config.model.xlstm.context_length, 99);
}

TEST(Config, EveryShippedConfigurationIsValid) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(CAROUSEL_GOLDEN_DEFAULT "/../../configs")) {
    if (entry.path().extension() != ".yaml") continue;
    ++files;
    EXPECT_NO_THROW(load_config(entry.path().string(), {})) << entry.path();
  }
  EXPECT_GT(files, 0);
}

// --- writing ------------------------------------------------------------------------------------

TEST(ConfigYaml, IsReadBackUnchanged) {
  const Lines tricky{"null",   "~",      "true", "1e3", "0.5",   "- a", "a: b", "a #b", " lead",
                     "[x, y]", "quo\"t", "a,b",  "ä€😀", "\ttab", "*x",  "!t",   "%",    "-1"};
  for (const std::string& yaml :
       {kMinimal, kNeurips, kMinimal + "optim: {lr: 0.00031415926535897933}\nrecompute: true\n",
        kNeurips.substr(0, kNeurips.find("data:")) + "data: {task: {name: even_pairs}}\n"}) {
    Config config = load_text(yaml).config;
    if (!config.data.task) {
      config.data.train = tricky;
      config.data.val.files = tricky;
    }
    config.sample.prompt = "\"\\ \n\t\x01 é";
    config.micro_batch_size = 2;
    const std::string written = to_yaml(config);
    const Config again = load_text(written).config;
    EXPECT_EQ(to_yaml(again), written);
    EXPECT_EQ(again.data.train, config.data.train);
    EXPECT_EQ(again.data.val.files, config.data.val.files);
    EXPECT_EQ(again.sample.prompt, config.sample.prompt);
    EXPECT_EQ(again.optim.lr, config.optim.lr);
    EXPECT_EQ(fixed_values(again), fixed_values(config));
  }
}

TEST(ConfigYaml, HoldsTheKeysOfItsFamilyAlone) {
  const std::string large = to_yaml(load_text(kMinimal).config);
  EXPECT_NE(large.find("\n  gate_soft_cap: 15\n"), std::string::npos) << large;
  EXPECT_EQ(large.find("slstm"), std::string::npos) << large;
  const std::string neurips = to_yaml(load_text(kNeurips).config);
  EXPECT_NE(neurips.find("\n  mlstm:\n    num_heads: 4\n"), std::string::npos) << neurips;
  EXPECT_EQ(neurips.find("gate_soft_cap"), std::string::npos) << neurips;
}

TEST(ConfigExplain, ShowsValueOriginAndMeaningOfEveryKey) {
  const LoadedConfig loaded = load_text(kMinimal, {"optim.lr=3e-4"});
  const std::string text = explain(loaded);
  const auto has = [&](const std::string& part) { return text.find(part) != std::string::npos; };
  EXPECT_TRUE(
      has("steps: 100                                # [run.yaml:2] optimizer steps of the "
          "whole run (an integer, in [1, 4294967295], steps)\n"));
  EXPECT_TRUE(
      has("  lr: 0.0003                              # [override 'optim.lr=3e-4'] peak "
          "learning rate (a number, in (0, 10])\n"));
  EXPECT_TRUE(has("  # vocab_size: the tokenizer's           # [default] "));
  for (const Field& field : schema()) {
    if (!field.applies_to(loaded.config)) continue;
    EXPECT_TRUE(has(std::string(leaf_of(field.key)) + ": ")) << field.key;
  }
  // The comments do not change what it says.
  EXPECT_EQ(to_yaml(load_text(text).config), to_yaml(loaded.config));
}

TEST(FixedValues, AreWhatDefinesTheRunAndNothingElse) {
  const auto values = fixed_values(load_text(kMinimal).config);
  EXPECT_EQ(values.at("seed"), "1");
  for (const char* free :
       {"steps=5", "name=other", "output_dir=x", "device=cpu", "eval.batches=3",
        "checkpoint.every=7", "checkpoint.async=true", "sample.tokens=3", "logging.every=1",
        "logging.tensorboard=true", "micro_batch_size=4", "recompute=true"}) {
    EXPECT_EQ(fixed_values(load_text(kMinimal, {free}).config), values) << free;
  }
  std::set<std::map<std::string, std::string>> all{values};
  const Lines fixed{"seed=2",          "model.num_blocks=3", "model.vocab_size=300",
                    "data.seq_len=64", "optim.lr=1e-4",      "schedule.warmup=1",
                    "precision=bf16",  "data.val=0.5"};
  for (const std::string& change : fixed) {
    all.insert(fixed_values(load_text(kMinimal, {change}).config));
  }
  EXPECT_EQ(all.size(), fixed.size() + 1);
}

TEST(ConfigSchema, EveryFieldIsDocumentedAndUnique) {
  std::set<std::pair<std::string, int>> seen;
  const std::string help = describe_keys();
  for (const Field& field : schema()) {
    const int family = field.family ? static_cast<int>(*field.family) : -1;
    EXPECT_TRUE(seen.emplace(field.key, family).second) << field.key;
    EXPECT_FALSE(field.doc.empty()) << field.key;
    EXPECT_EQ(field.doc.find('\n'), std::string::npos) << field.key;
    EXPECT_NE(help.find("\n    " + field.doc + "\n"), std::string::npos) << field.key;
    // Either a default, or words for what its absence means.
    EXPECT_TRUE(field.required || !field.absent.empty() || field.format(Config{})) << field.key;
  }
}

TEST(ConfigSchema, CrossChecksNameKeysThatExist) {
  for (const CrossCheck& check : cross_checks()) {
    for (const std::string& key : check.keys) {
      EXPECT_TRUE(std::any_of(schema().begin(), schema().end(), [&](const Field& f) {
        return f.key == key;
      })) << key;
    }
  }
}

}  // namespace
}  // namespace carousel
