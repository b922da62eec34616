// What is refused in a configuration, and in which words.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/base/philox.h"
#include "tests/train/config/support.h"
#include "train/config/config.h"

namespace carousel {
namespace {

using testing::errors_of;
using testing::kMinimal;
using testing::kNeurips;
using testing::load_text;
using Lines = std::vector<std::string>;

// --- errors -------------------------------------------------------------------------------------

TEST(ConfigErrors, AllAreReportedAtOnceWithTheirPlaces) {
  const Lines want{
      "run.yaml:2:8: steps: 0 is out of range: it must be in [1, 4294967295] (steps)",
      "run.yaml:3:7: seed: expected an integer, got '1e3'; write 1000",
      "run.yaml:4:1: missing key 'num_blocks' in model: blocks, each an mLSTM and a feed-forward "
      "layer (an integer, in [1, 4096])",
      "run.yaml:8:19: data.train: expected a path, got a list",
      "run.yaml:9:9: unknown key 'weigth_decay' in optim; did you mean 'weight_decay'?",
      "run.yaml:9:36: duplicate key 'lr' in optim; it stands in line 9 already",
      "run.yaml:10:1: unknown key 'clip' at the top level; 'clip' stands in optim",
      "run.yaml:11:18: schedule.type: unknown value 'cosin'; did you mean 'cosine'?",
      "override 'optim.eps=small': optim.eps: expected a number, got 'small'",
  };
  EXPECT_EQ(errors_of("name: bad\n"
                      "steps: 0\n"
                      "seed: 1e3\n"
                      "model:\n"
                      "  family: xlstm_large\n"
                      "  embedding_dim: 128\n"
                      "  num_heads: 4\n"
                      "data: {train: [a, [b]]}\n"
                      "optim: {weigth_decay: 3, lr: 1e-3, lr: 1}\n"
                      "clip: 1\n"
                      "schedule: {type: cosin}\n",
                      {"optim.eps=small"}),
            want);
}

/// One error of one override.
struct BadValue {
  std::string override_text;
  std::string error;
};

TEST(ConfigErrors, EachTypeSaysWhatItExpectedAndGot) {
  const std::vector<BadValue> cases{
      {"steps=1.5", "expected an integer, got '1.5'"},
      {"steps=\"10\"", "expected an integer, got the text \"10\""},
      {"steps=[1]", "expected an integer, got a list"},
      {"steps={a: 1}", "expected an integer, got a mapping"},
      {"steps=99999999999999999999", "'99999999999999999999' does not fit in 64 bits"},
      {"steps=0x10", "expected an integer, got '0x10'"},
      {"steps=+-1", "expected an integer, got '+-1'"},
      {"model.chunk_size=99999999999", "'99999999999' does not fit in 32 bits"},
      {"model.use_bias=yes", "expected true or false, got 'yes'"},
      {"model.use_bias='true'", "expected true or false, got the text \"true\""},
      {"optim.lr=fast", "expected a number, got 'fast'"},
      {"optim.lr=0", "0 is out of range: it must be in (0, 10]"},
      {"optim.lr=.nan", "expected a number, got '.nan'"},
      {"optim.lr=nan", "expected a finite number, got 'nan'"},
      {"optim.lr=inf", "expected a finite number, got 'inf'"},
      {"optim.lr=1e999", "expected a finite number, got '1e999'"},
      {"optim.betas=[0.9, 1]", "1 is out of range: it must be in [0, 1)"},
      {"optim.betas=0.9", "expected two numbers [first, second], got '0.9'"},
      {"optim.clip=-1", "-1 is out of range: it must be at least 0"},
      {"schedule.min_lr_ratio=1.5", "1.5 is out of range: it must be in [0, 1]"},
      {"name=[a]", "expected text, got a list"},
      {"name=!env HOME", "the tag '!env' is not supported; write the value alone"},
      {"data.train=[]", "expected at least one path, got an empty list"},
      {"data.train=''", "expected a path, got an empty text"},
      {"data.val=1", "1 is out of range: it must be in (0, 1)"},
      {"data.val={a: 1}", "expected a path, got a mapping"},
      {"data.tokenizer=byt", "unknown value 'byt'; did you mean 'byte'?"},
      {"data.tokenizer=words",
       "unknown value 'words'; it is one of byte, char, none, or a path (with a '/' or a '.')"},
      {"precision=fp8", "unknown value 'fp8'; it is one of f32, bf16"},
      {"checkpoint.resume=nevr", "unknown value 'nevr'; did you mean 'never'?"},
      {"sample.temperature=hot", "expected a number, got 'hot'"},
  };
  for (const BadValue& c : cases) {
    const std::string key = c.override_text.substr(0, c.override_text.find('='));
    EXPECT_EQ(errors_of(kMinimal, {c.override_text}),
              Lines{"override '" + c.override_text + "': " + key + ": " + c.error});
  }
}

TEST(ConfigErrors, ListsReportEachBadItem) {
  EXPECT_EQ(errors_of("name: neurips\nsteps: 100\n"
                      "model: {family: xlstm, embedding_dim: 64, num_blocks: 2,\n"
                      "  slstm_at: [x, 1, -1]}\n"
                      "data: {train: a}\n"),
            (Lines{"run.yaml:4:14: model.slstm_at: expected an integer, got 'x'",
                   "run.yaml:4:20: model.slstm_at: -1 is out of range: it must be in [0, 4095]"}));
  EXPECT_EQ(errors_of(kNeurips, {"model.slstm_at=1"}),
            Lines{"override 'model.slstm_at=1': model.slstm_at: expected a list of integers, got "
                  "'1'"});
  const std::string task =
      kNeurips.substr(0, kNeurips.find("data:")) + "data: {task: {name: parity";
  EXPECT_EQ(errors_of(task + ", train_lengths: [9, 3]}}\n"),
            Lines{"run.yaml:4:44: data.task.train_lengths: min 9 is greater than max 3"});
  EXPECT_EQ(errors_of(task + ", train_lengths: [3]}}\n"),
            Lines{"run.yaml:4:44: data.task.train_lengths: expected two integers [min, max], got a "
                  "list"});
}

TEST(ConfigErrors, OverridesMustNameAKey) {
  EXPECT_EQ(errors_of(kMinimal, {"optim.lr"}),
            Lines{"override 'optim.lr': expected key=value, for instance optim.lr=3e-4"});
  EXPECT_EQ(errors_of(kMinimal, {"=3"}),
            Lines{"override '=3': expected key=value, for instance optim.lr=3e-4"});
  EXPECT_EQ(errors_of(kMinimal, {"optim.lr= "}),
            Lines{"override 'optim.lr= ': the value is missing; null would unset the key"});
  EXPECT_EQ(errors_of(kMinimal, {"seed=,"}),
            Lines{"override 'seed=,': the value is not valid YAML: a second document, or a "
                  "character out of place, starts here"});
  EXPECT_EQ(errors_of(kMinimal, {"optm.lr=3"}),
            Lines{"override 'optm.lr=3': unknown key 'optm.lr'; did you mean 'optim.lr'?"});
  EXPECT_EQ(errors_of(kMinimal, {"lr=3"}),
            Lines{"override 'lr=3': unknown key 'lr'; 'lr' stands in optim"});
  EXPECT_EQ(errors_of(kMinimal, {"logging=3"}),
            Lines{"override 'logging=3': 'logging' is a section; override its keys one by one, "
                  "logging.every=…"});
  EXPECT_EQ(errors_of(kMinimal, {"data.train=[a"}),
            Lines{"override 'data.train=[a': the value is not valid YAML: end of sequence flow not "
                  "found"});
  EXPECT_EQ(errors_of(kMinimal, {"zzzzzzzzz.q=1"}).size(), 1u);
}

TEST(ConfigErrors, StructureIsChecked) {
  EXPECT_EQ(errors_of(kMinimal + "optim: 3\n"),
            Lines{"run.yaml:5:8: 'optim' is a section; expected keys and values below it, betas, "
                  "clip, eps, lr, weight_decay"});
  EXPECT_EQ(errors_of(kMinimal + "seed:\n"),
            Lines{"run.yaml:5:1: seed: expected an integer, got nothing"});
  EXPECT_EQ(errors_of(kMinimal + "optim.lr: 3\n"),
            Lines{"run.yaml:5:1: unknown key 'optim.lr' at the top level; 'lr' stands in optim"});
  EXPECT_EQ(errors_of(kMinimal + "optim: &o {lr: 1}\nschedule: {<<: *o}\n"),
            Lines{"run.yaml:6:12: merge keys ('<<') are not supported; write the keys out"});
  EXPECT_EQ(errors_of(kMinimal + "[a]: 3\n"),
            Lines{"run.yaml:5:1: expected the name of a key at the top level"});
  EXPECT_EQ(errors_of(kMinimal + "---\nname: second\n"),
            Lines{"run.yaml:5:1: not valid YAML: a second document, or a character out of place, "
                  "starts here"});
  EXPECT_EQ(errors_of("- a\n- b\n"), Lines{"run.yaml:1:1: expected keys and values, 'key: value'"});
  EXPECT_EQ(errors_of("just text"), Lines{"run.yaml:1:1: expected keys and values, 'key: value'"});
  EXPECT_TRUE(errors_of(kMinimal + "optim:\n").empty());  // an empty section changes nothing
}

TEST(ConfigErrors, SyntaxErrorsStandAlone) {
  EXPECT_EQ(errors_of("name: a\nmodel: {a: [}\n", {"lr=1"}),
            (Lines{"run.yaml:2:13: not valid YAML: illegal flow end",
                   "override 'lr=1': unknown key 'lr'; 'lr' stands in optim"}));
  EXPECT_EQ(errors_of(",name: a\n"),
            Lines{"run.yaml:1:1: not valid YAML: a second document, or a character out of place, "
                  "starts here"});
  EXPECT_EQ(errors_of("name: *nobody\n").size(), 1u);
  EXPECT_EQ(errors_of("a:\n\t- b\n").size(), 1u);
}

TEST(ConfigErrors, AnEmptyFileLacksTheRequiredKeys) {
  const Lines want{
      "run.yaml: missing key 'family' in model: xlstm_large as xLSTM-7B, or xlstm with mLSTM and "
      "sLSTM blocks (xlstm_large | xlstm)",
      "run.yaml: missing key 'name': name of the run, also of its directory (text)",
      "run.yaml: missing key 'steps': optimizer steps of the whole run (an integer, in [1, "
      "4294967295], steps)",
      "run.yaml: no training data: give data.train (files) or data.task (synthetic)"};
  EXPECT_EQ(errors_of(""), want);
  EXPECT_EQ(errors_of("# nothing\n"), want);
}

TEST(ConfigErrors, HostileFilesAreRefused) {
  const std::size_t megabyte = std::size_t{1} << 20;
  const auto only_error = [](const std::string& yaml) {
    const Lines errors = errors_of(yaml);
    return errors.size() == 1 ? errors[0] : "not one error";
  };
  EXPECT_NE(only_error(std::string(megabyte + 1, '#')).find("larger than"), std::string::npos);
  EXPECT_NE(only_error(std::string(100000, '[')).find("nested too deeply"), std::string::npos);
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "key" + std::to_string(i) + ": 1\n";
  const Lines capped = errors_of(many);
  EXPECT_EQ(capped.size(), 51u);
  EXPECT_EQ(capped.back(), "… and 954 more");

  std::string laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 30; ++i) {
    laughs += fmt::format("a{0}: &a{0} [*a{1}", i, i - 1);
    for (int j = 0; j < 8; ++j) laughs += fmt::format(", *a{}", i - 1);
    laughs += "]\n";
  }
  EXPECT_FALSE(errors_of(laughs).empty());
  EXPECT_FALSE(errors_of("data: &m {task: *m, train: &t [*t]}\n").empty());  // contains itself
}

TEST(ConfigErrors, StayOnOneLineWhateverTheFileHolds) {
  EXPECT_EQ(
      errors_of(kMinimal + "\"a\\nb\\e[31m\": 1\nprecision: \"x\\ry\"\n"),
      (Lines{"run.yaml:5:1: unknown key 'a?b?[31m' at the top level; known are device, "
             "micro_batch_size, name, output_dir, precision, recompute, seed, steps, "
             "tf32, checkpoint, data, distributed, eval, logging, model, optim, sample, schedule",
             "run.yaml:6:12: precision: unknown value the text \"x?y\"; it is one of f32, "
             "bf16"}));
}

TEST(ConfigErrors, RandomDamageNeverEscapesAsAnotherException) {
  const std::string good = to_yaml(load_text(kNeurips).config);
  const std::string alphabet = ":{}[],&*!|>'\"%@`#-? \n\t\\~<0x\xff";
  for (std::uint32_t i = 0; i < 500; ++i) {
    std::string bad = good;
    for (std::uint32_t edit = 0; edit < 4; ++edit) {
      const PhiloxWords w = philox_block({1, i, 0}, edit);
      bad[w.x[0] % bad.size()] = alphabet[w.x[1] % alphabet.size()];
    }
    EXPECT_NO_THROW(errors_of(bad)) << bad;
  }
}

TEST(ConfigErrors, UnreadableFilesAreNamed) {
  const auto error = [](const std::string& path) {
    try {
      load_config(path, {});
    } catch (const UsageError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(error("/nowhere/run.yaml"),
            "/nowhere/run.yaml: cannot open the configuration: No such file or directory");
  EXPECT_EQ(error("/tmp"), "/tmp: is a directory; name a YAML file");
}

// --- keys together ------------------------------------------------------------------------------

TEST(ConfigChecks, AllCrossChecksAreReportedTogether) {
  EXPECT_EQ(errors_of("name: a/b\n"
                      "steps: 10\n"
                      "model: {family: xlstm_large, embedding_dim: 130, num_heads: 4,\n"
                      "  num_blocks: 2}\n"
                      "data: {train: a, batch_size: 6}\n"
                      "schedule: {warmup: 11}\n"
                      "micro_batch_size: 4\n"
                      "eval: {every: 5}\n"),
            (Lines{"run.yaml:1:1: name 'a/b' cannot name a directory: use letters, digits, '_', "
                   "'-' and, but not first, '.'",
                   "run.yaml:3:30: model.embedding_dim = 130 is not divisible by model.num_heads = "
                   "4",
                   "run.yaml:6:12: schedule.warmup = 11 is longer than the run, steps = 10",
                   "run.yaml:7:1: data.batch_size = 6 is not divisible by micro_batch_size = 4",
                   "run.yaml:8:8: eval.every = 5 needs validation data; give data.val, files or a "
                   "fraction of the training data"}));
}

/// What one set of overrides of a valid configuration leads to.
struct Contradiction {
  Lines overrides;
  std::string error;  ///< without the place
};

void expect_contradictions(const std::string& yaml, const std::vector<Contradiction>& cases) {
  for (const Contradiction& c : cases) {
    const Lines errors = errors_of(yaml, c.overrides);
    ASSERT_EQ(errors.size(), 1u) << c.error;
    EXPECT_TRUE(errors[0].ends_with(": " + c.error)) << errors[0];
  }
}

TEST(ConfigChecks, EachContradictionIsExplained) {
  expect_contradictions(
      kMinimal,
      {{{"name=.hidden"},
        "name '.hidden' cannot name a directory: use letters, digits, '_', '-' and, but not first, "
        "'.'"},
       {{"output_dir=''"}, "output_dir is empty; leave the key out for runs/<name>"},
       {{"model.qk_dim_factor=0.3"},
        "model.embedding_dim = 128 times model.qk_dim_factor = 0.3 is 38.4, not a whole number"},
       {{"model.v_dim_factor=0.0703125"},
        "model.embedding_dim = 128 times model.v_dim_factor = 9 is not divisible by "
        "model.num_heads = 4"},
       {{"model.slstm_at=[0]"}, "model.slstm_at does not belong to model.family xlstm_large"},
       {{"data.train=null"}, "no training data: give data.train (files) or data.task (synthetic)"},
       {{"data.tokenizer=none"},
        "data.tokenizer none does not tell the number of tokens; give model.vocab_size"},
       {{"tf32=true", "precision=bf16"},
        "tf32 concerns float32 products, but precision is bf16; leave it out"},
       {{"data.document_token=300", "model.vocab_size=300"},
        "data.document_token = 300 is outside model.vocab_size = 300"},
       {{"data.tokenizer=none", "model.vocab_size=9", "sample.every=1"},
        "sample.every needs a tokenizer, and this data has none"},
       {{"sample.every=1", "sample.prompt=''"},
        "sample.prompt is empty; samples continue at least one token"},
       {{"schedule.warmup=50", "schedule.decay_steps=50"},
        "schedule.decay_steps = 50 is not after schedule.warmup = 50"},
       {{"schedule.type=wsd", "schedule.warmup=60", "schedule.decay_steps=60"},
        "schedule.warmup = 60 and schedule.decay_steps = 60 exceed steps = 100"}});
  expect_contradictions(
      kNeurips,
      {{{"model.slstm_at=[0, 0]"}, "model.slstm_at names block 0 twice"},
       {{"model.slstm_at=[2]"},
        "model.slstm_at names block 2, but there are model.num_blocks = 2, from 0"},
       {{"model.slstm.num_heads=3"},
        "model.embedding_dim = 64 is not divisible by model.slstm.num_heads = 3"},
       {{"model.mlstm.num_heads=3"},
        "model.embedding_dim times model.mlstm.proj_factor, rounded up to 64, = 128 is not "
        "divisible by model.mlstm.num_heads = 3"},
       {{"model.mlstm.qkv_proj_blocksize=3"},
        "model.embedding_dim times model.mlstm.proj_factor, rounded up to 64, = 128 is not "
        "divisible by model.mlstm.qkv_proj_blocksize = 3"},
       {{"model.context_length=100"},
        "model.context_length = 100 is less than the length of sequences, 256"},
       {{"model.num_heads=4"}, "model.num_heads does not belong to model.family xlstm"},
       {{"model.feedforward.act_fn=swish"},
        "model.feedforward.act_fn: unknown value 'swish'; it is one of gelu"}});
}

TEST(ConfigChecks, TasksAreCheckedToo) {
  const std::string model = kNeurips.substr(0, kNeurips.find("data:"));
  const std::string task = model + "data: {task: {name: parity}}\n";
  EXPECT_TRUE(errors_of(task).empty());
  EXPECT_TRUE(errors_of(task, {"eval.every=5"}).empty());  // tasks make validation data, too
  expect_contradictions(
      task,
      {{{"data.seq_len=64"},
        "data.seq_len has no meaning with data.task, which makes its own data"},
       {{"data.train=a.txt"}, "data.train has no meaning with data.task, which makes its own data"},
       {{"data.task.name=parrity"},
        "data.task.name: unknown value 'parrity'; did you mean 'parity'?"},
       {{"eval.batches=0"}, "eval.batches = 0 means all, but data.task has no end; give a number"},
       {{"sample.every=5"}, "sample.every needs a tokenizer, and this data has none"}});
  EXPECT_EQ(errors_of(model + "data: {task: {pairs: 3}}\n"),
            Lines{"run.yaml:4:15: missing key 'name' in data.task"});
}

}  // namespace
}  // namespace carousel
