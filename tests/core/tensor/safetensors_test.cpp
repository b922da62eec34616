#include "core/tensor/safetensors.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <limits>

#include "tests/support/errors.h"
#include "tests/support/golden.h"
#include "tests/support/random.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using testing::message_of;
using testing::TempDir;

// A file with this header and this many bytes of data.
std::string raw_file(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + header + std::string(data_bytes, '\7');
}

// What parsing such a file complains about; empty if nothing.
std::string complaint(const std::string& file) {
  return message_of<CheckpointError>(
      [&] { parse_safetensors_header("x.safetensors", std::as_bytes(std::span(file))); });
}
std::string complaint(const std::string& header, std::size_t data_bytes) {
  return complaint(raw_file(header, data_bytes));
}

std::string entry(const std::string& name, const std::string& fields) {
  return fmt::format("\"{}\":{{{}}}", name, fields);
}
std::string f32(const std::string& name, int begin, int end) {
  return entry(name, fmt::format(R"("dtype":"F32","shape":[{}],"data_offsets":[{},{}])",
                                 (end - begin) / 4, begin, end));
}
std::string object(const std::vector<std::string>& entries) {
  return fmt::format("{{{}}}", fmt::join(entries, ","));
}

#define EXPECT_COMPLAINT(text, ...)                                               \
  do {                                                                            \
    const std::string said = complaint(__VA_ARGS__);                              \
    EXPECT_NE(said.find("x.safetensors"), std::string::npos) << "said: " << said; \
    EXPECT_NE(said.find(text), std::string::npos) << "said: " << said;            \
  } while (false)

TEST(Safetensors, WritesAndReadsBackEveryDTypeAndShape) {
  const TempDir dir;
  const std::vector<NamedTensor> tensors{
      {"bytes", Tensor::from<std::uint8_t>(std::vector<std::uint8_t>{1, 2, 255}, {3})},
      {"f32", testing::random_normal<float>({5, 7}, 1)},
      {"naïve \"name\"\\",
       Tensor::from<bfloat16>(std::vector<bfloat16>(3, bfloat16(2.5f)), {3, 1})},
      {"f64", testing::random_normal<double>({2, 1, 3}, 2)},
      {"scalar", Tensor::from<float>(std::vector<float>{42.0f}, {})},
      {"i64", Tensor::from<std::int64_t>(std::vector<std::int64_t>{INT64_MIN}, {1})},
      {"i32", Tensor::from<std::int32_t>(std::vector<std::int32_t>{-7, 7}, {2})},
      {"u16", Tensor::from<std::uint16_t>(std::vector<std::uint16_t>{65535}, {1})},
      {"f16", Tensor::from<float16>(std::vector<float16>{float16(0.1f)}, {1})},
      {"empty", Tensor::zeros({0, 4}, DType::kF32)},
      {"deep", testing::random_normal<float>({1, 2, 1, 2, 1, 3}, 3)}};
  write_safetensors(dir / "a.safetensors", tensors, {{"format", "pt"}, {"about", "ünïcode"}});

  const SafetensorsFile file(dir / "a.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.metadata().at("about"), "ünïcode");
  ASSERT_EQ(file.names().size(), tensors.size());
  for (const auto& [name, want] : tensors) {
    ASSERT_TRUE(file.contains(name)) << name;
    const Tensor got = file.load(name);
    EXPECT_EQ(got.dtype(), want.dtype()) << name;
    EXPECT_EQ(got.shape(), want.shape()) << name;
    EXPECT_EQ(file.info(name).bytes, want.bytes()) << name;
    EXPECT_EQ(file.info(name).offset % size_of(want.dtype()), 0u) << name;
    EXPECT_EQ(std::memcmp(got.raw(), want.raw(), want.bytes()), 0) << name;
  }
}

TEST(Safetensors, KeepsTheOrderOfTensorsOfOneElementSize) {
  const TempDir dir;
  const Tensor t = Tensor::zeros({2}, DType::kF32);
  write_safetensors(dir / "a",
                    {{"z", t}, {"b", t}, {"half", Tensor::zeros({1}, DType::kBF16)}, {"a", t}});
  EXPECT_EQ(SafetensorsFile(dir / "a").names(), (std::vector<std::string>{"z", "b", "a", "half"}));
}

TEST(Safetensors, EmptyFilesHoldNothingButMetadata) {
  const TempDir dir;
  write_safetensors(dir / "a", {}, {{"k", "v"}});
  EXPECT_TRUE(SafetensorsFile(dir / "a").names().empty());
  EXPECT_EQ(SafetensorsFile(dir / "a").metadata().at("k"), "v");
}

TEST(Safetensors, ConvertsFloatingDTypesOnTheWay) {
  const TempDir dir;
  const Tensor x = testing::random_normal<float>({1000, 37}, 5);
  write_safetensors(dir / "a", {{"x", x}, {"ids", Tensor::zeros({2}, DType::kI32)}});
  const SafetensorsFile file(dir / "a");
  const auto values = x.to_vector<float>();
  const auto narrow = file.load_as("x", DType::kBF16).to_vector<bfloat16>();
  const auto wide = file.load_as("x", DType::kF64).to_vector<double>();
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(narrow[i].bits, bfloat16(values[i]).bits);
    ASSERT_EQ(wide[i], static_cast<double>(values[i]));
  }
  const std::string said = message_of<CheckpointError>([&] { file.load_as("ids", DType::kF32); });
  EXPECT_NE(said.find("'ids' is i32"), std::string::npos) << said;
}

TEST(Safetensors, ReadsIntoViewsAndBumpsTheirVersion) {
  const TempDir dir;
  write_safetensors(dir / "a", {{"x", testing::random_normal<float>({2, 3}, 1)}});
  const SafetensorsFile file(dir / "a");
  const Tensor arena = Tensor::zeros({10}, DType::kF64);
  Tensor view = arena.range(3, {2, 3});
  const auto before = arena.version();
  file.read_into("x", view);
  EXPECT_GT(arena.version(), before);
  const auto all = arena.to_vector<double>();
  EXPECT_EQ(all[2], 0.0);
  EXPECT_EQ(all[9], 0.0);
  EXPECT_EQ(static_cast<float>(all[8]), file.load("x").to_vector<float>()[5]);

  Tensor wrong = Tensor::zeros({3, 2}, DType::kF32);
  const std::string said = message_of<CheckpointError>([&] { file.read_into("x", wrong); });
  EXPECT_NE(said.find("'x' has shape (2, 3), expected (3, 2)"), std::string::npos) << said;
}

TEST(Safetensors, ReadsRowsOfATensor) {
  const TempDir dir;
  const Tensor x = testing::random_normal<float>({5, 3}, 1);
  write_safetensors(dir / "a", {{"x", x}, {"scalar", Tensor::zeros({}, DType::kF32)}});
  const SafetensorsFile file(dir / "a");
  Tensor rows = Tensor::empty({2, 3}, DType::kF32);
  file.read_rows_into("x", 3, rows);
  EXPECT_EQ(rows.to_vector<float>(), x.slice(3, 5).to_vector<float>());
  Tensor none = Tensor::empty({0, 3}, DType::kF32);
  file.read_rows_into("x", 5, none);
  EXPECT_THROW(file.read_rows_into("x", 4, rows), CheckpointError);
  EXPECT_THROW(file.read_rows_into("x", -1, rows), CheckpointError);
  EXPECT_THROW(file.read_rows_into("scalar", 0, rows), CheckpointError);
  Tensor narrow = Tensor::empty({2, 2}, DType::kF32);
  EXPECT_THROW(file.read_rows_into("x", 0, narrow), CheckpointError);
}

TEST(Safetensors, ReadsARangeOfATensor) {
  const TempDir dir;
  const Tensor x = testing::random_normal<float>({5, 3}, 1);
  write_safetensors(dir / "a", {{"x", x}});
  const SafetensorsFile file(dir / "a");
  const Tensor part = Tensor::empty({4}, DType::kF32);
  file.read_range_into("x", 7, part);
  EXPECT_EQ(part.to_vector<float>(), x.range(7, {4}).to_vector<float>());
  file.read_range_into("x", 15, Tensor::empty({0}, DType::kF32));
  for (const std::int64_t begin : {-1, 12, 16}) {
    EXPECT_THROW(file.read_range_into("x", begin, part), CheckpointError) << begin;
  }
}

TEST(Safetensors, StreamsTensorsThatAreMadeInTurn) {
  const TempDir dir;
  int made = 0;
  const auto source = [&](const char* name, float value) {
    return TensorSource{name, DType::kF32, {2}, [&made, value] {
                          ++made;
                          return Tensor::from<float>(std::vector{value, value}, {2});
                        }};
  };
  stream_safetensors(dir / "a", {source("one", 1), source("two", 2)}, {});
  EXPECT_EQ(made, 2);
  const SafetensorsFile file(dir / "a");
  EXPECT_EQ(file.load("two").to_vector<float>(), (std::vector<float>{2, 2}));
  const TensorSource wrong{"x", DType::kF32, {3}, [] { return Tensor::zeros({2}, DType::kF32); }};
  EXPECT_THROW(stream_safetensors(dir / "b", {wrong}, {}), InternalError);
}

TEST(Safetensors, UnknownTensorsAreNamed) {
  const TempDir dir;
  write_safetensors(dir / "a", {});
  const SafetensorsFile file(dir / "a");
  EXPECT_FALSE(file.contains("weight"));
  const std::string said = message_of<CheckpointError>([&] { file.load("weight"); });
  EXPECT_NE(said.find("no tensor 'weight'"), std::string::npos) << said;
}

TEST(Safetensors, UnreadablePathsAreErrors) {
  const TempDir dir;
  const auto open = [](const std::filesystem::path& path) {
    return message_of<CheckpointError>([&] { SafetensorsFile{path}; });
  };
  EXPECT_NE(open(dir / "none").find("No such file"), std::string::npos) << open(dir / "none");
  EXPECT_NE(open(dir.path()).find("not a regular file"), std::string::npos) << open(dir.path());
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  EXPECT_NE(open(dir / "fifo").find("not a regular file"), std::string::npos);
  dir.write("empty", "");
  EXPECT_NE(open(dir / "empty").find("0 bytes"), std::string::npos) << open(dir / "empty");
}

TEST(SafetensorsHeader, AcceptsTheFormatAsOthersWriteIt) {
  EXPECT_EQ(complaint("{}", 0), "");
  EXPECT_EQ(complaint("{}      ", 0), "");
  EXPECT_EQ(complaint(object({f32("b", 4, 8), f32("a", 0, 4)}), 8), "");
  EXPECT_EQ(
      complaint(R"({"__metadata__":{},"s":{"data_offsets":[0,4],"shape":[],"dtype":"F32"}})", 4),
      "");
}

TEST(SafetensorsHeader, ChecksTheHeaderLengthAgainstTheFile) {
  EXPECT_COMPLAINT("7 bytes", std::string(7, '\0'));
  EXPECT_COMPLAINT("does not begin with '{'", std::string(8, '\0'));
  EXPECT_COMPLAINT("claims 3 bytes, the file has 10", std::string("\3\0\0\0\0\0\0\0{}", 10));
  EXPECT_COMPLAINT("claims 18446744073709551615 bytes", std::string(8, '\xff') + "{}");
  EXPECT_COMPLAINT("does not begin with '{'", " {}", 0);
  EXPECT_COMPLAINT("does not begin with '{'", "[]", 0);
}

TEST(SafetensorsHeader, RefusesBrokenJson) {
  EXPECT_COMPLAINT("broken at byte", "{", 0);
  EXPECT_COMPLAINT("broken at byte", "{}x", 0);
  EXPECT_COMPLAINT("broken at byte", "{\"a", 0);
  EXPECT_COMPLAINT("broken at byte", "{\"\xff\xfe\":{}}", 0);  // not UTF-8
  EXPECT_COMPLAINT("broken at byte", "{\"a\nb\":{}}", 0);      // a raw control character
  EXPECT_COMPLAINT("broken at byte 10: a zero byte", std::string("{}\0{", 4), 0);
}

TEST(SafetensorsHeader, RefusesDepthAndWrongTypes) {
  EXPECT_COMPLAINT("\"a\" (must be an object)", R"({"a":1})", 0);
  EXPECT_COMPLAINT("unexpected null", R"({"a":null})", 0);
  EXPECT_COMPLAINT("unexpected an array in \"a\"", "{\"a\":" + std::string(100'000, '[') + "}", 0);
  EXPECT_COMPLAINT("unexpected an object in \"a\"", R"({"a":{"dtype":{}}})", 0);
  EXPECT_COMPLAINT("unexpected true in \"a\"", R"({"a":{"dtype":true}})", 0);
  EXPECT_COMPLAINT("unexpected \"F32\" in \"a\", field \"type\"", R"({"a":{"type":"F32"}})", 0);
  EXPECT_COMPLAINT("unexpected 3 in __metadata__, \"k\"", R"({"__metadata__":{"k":3}})", 0);
  EXPECT_COMPLAINT("unexpected an object in __metadata__", R"({"__metadata__":{"k":{}}})", 0);
  EXPECT_COMPLAINT("unexpected -4 in \"a\", data_offsets", R"({"a":{"data_offsets":[-4,0]}})", 0);
  EXPECT_COMPLAINT("unexpected 1.5 in \"a\", shape", R"({"a":{"shape":[1.5]}})", 0);
  EXPECT_COMPLAINT("unexpected 18446744073709551616 in \"a\", shape",
                   R"({"a":{"shape":[18446744073709551616]}})", 0);
  EXPECT_COMPLAINT("unexpected an array in \"a\", shape", R"({"a":{"shape":[[1]]}})", 0);
}

TEST(SafetensorsHeader, RefusesRepeatedKeys) {
  EXPECT_COMPLAINT("\"a\": repeated", object({f32("a", 0, 4), f32("a", 4, 8)}), 8);
  EXPECT_COMPLAINT("\"k\" repeated", R"({"__metadata__":{"k":"1","k":"2"}})", 0);
  EXPECT_COMPLAINT("\"__metadata__\": repeated", R"({"__metadata__":{},"__metadata__":{}})", 0);
  EXPECT_COMPLAINT("\"a\": shape repeated",
                   R"({"a":{"dtype":"F32","shape":[2],"shape":[1],"data_offsets":[0,4]}})", 4);
}

TEST(SafetensorsHeader, RefusesMissingFieldsAndUnknownDTypes) {
  EXPECT_COMPLAINT("\"a\": no dtype", R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4);
  EXPECT_COMPLAINT("\"a\": no shape", R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4);
  EXPECT_COMPLAINT("\"a\": no data_offsets", R"({"a":{"dtype":"F32","shape":[1]}})", 4);
  EXPECT_COMPLAINT("\"a\": unsupported dtype \"F8_E4M3\"",
                   R"({"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", 4);
}

TEST(SafetensorsHeader, RefusesUnprintableNames) {
  EXPECT_COMPLAINT("\"a\\u001b[2J\": a name must not", object({f32("a\\u001b[2J", 0, 4)}), 4);
  EXPECT_COMPLAINT("\"\": a name must not", object({f32("", 0, 4)}), 4);
}

TEST(SafetensorsHeader, RefusesShapesThatAreTooLarge) {
  const auto with_shape = [](const std::string& shape) {
    return R"({"a":{"dtype":"F64","shape":[)" + shape + R"(],"data_offsets":[0,0]}})";
  };
  EXPECT_COMPLAINT("overflows", with_shape("4294967296,4294967296"), 0);
  EXPECT_COMPLAINT("overflows", with_shape("18446744073709551615"), 0);
  EXPECT_COMPLAINT("overflows", with_shape("1152921504606846976"), 0);  // 2^60 · 8 bytes
  EXPECT_COMPLAINT("more than 6 dimensions", with_shape("1,1,1,1,1,1,1,1,1"), 0);
}

TEST(SafetensorsHeader, RefusesRangesThatDoNotFit) {
  EXPECT_COMPLAINT("[4, 0] do not lie in order",
                   R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4);
  EXPECT_COMPLAINT("within the 4 bytes", object({f32("a", 0, 8)}), 4);
  EXPECT_COMPLAINT(
      "do not lie in order",
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551615]}})",
      4);
  EXPECT_COMPLAINT("f32 of shape (2) is 8 bytes, but its data_offsets span 4",
                   R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4);
  EXPECT_COMPLAINT("must be [begin, end]",
                   R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4);
  EXPECT_COMPLAINT("must be [begin, end]",
                   R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}})", 4);
}

TEST(SafetensorsHeader, RefusesMisalignmentOverlapsHolesAndTrailingBytes) {
  const std::string two = entry("odd", R"("dtype":"U8","shape":[2],"data_offsets":[0,2])");
  EXPECT_COMPLAINT("\"a\": misaligned, f32 cannot begin at byte 2", object({two, f32("a", 2, 6)}),
                   6);
  EXPECT_COMPLAINT(
      "\"b\": begins at byte 4 of the data, but the tensor before it ends at 8 (an overlap)",
      object({f32("a", 0, 8), f32("b", 4, 12)}), 12);
  EXPECT_COMPLAINT("(a hole)", object({f32("a", 0, 4), f32("b", 8, 12)}), 12);
  EXPECT_COMPLAINT("(a hole)", object({f32("a", 4, 8)}), 8);
  EXPECT_COMPLAINT("end at byte 4 of the data, which has 8 bytes", object({f32("a", 0, 4)}), 8);
  EXPECT_COMPLAINT("end at byte 0", "{}", 1);
}

TEST(SafetensorsHeader, ListsAllProblemsAtOnceUpToALimit) {
  const std::string said = complaint(
      object({entry("a", R"("dtype":"F31","shape":[1],"data_offsets":[0,4])"), f32("b", 0, 400)}),
      8);
  EXPECT_NE(said.find("\"a\": unsupported dtype"), std::string::npos) << said;
  EXPECT_NE(said.find("\"b\": data_offsets"), std::string::npos) << said;

  std::vector<std::string> many;
  for (int i = 0; i < 500; ++i) many.push_back(f32(fmt::format("t{}", i), 8, 12));
  const std::string limited = complaint(object(many), 4);
  EXPECT_NE(limited.find("and 480 more"), std::string::npos) << limited;
  const std::string long_name = complaint(object({f32(std::string(100'000, 'n'), 0, 4)}), 0);
  EXPECT_LT(long_name.size(), 1000u);
}

TEST(SafetensorsHeader, SurvivesEveryTruncationAndEveryFlippedBit) {
  const TempDir dir;
  write_safetensors(
      dir / "a",
      {{"x", Tensor::zeros({3}, DType::kF32)}, {"y", Tensor::zeros({2, 2}, DType::kBF16)}},
      {{"k", "v"}});
  const std::string good = testing::read_file(dir / "a");
  ASSERT_EQ(complaint(good), "");
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(complaint(good.substr(0, size)), "") << size;
  }
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    complaint(bad);  // refused or not, but never anything but a CheckpointError
  }
}

TEST(SafetensorsWriter, ReplacesTheOldFileOnlyWhenTheNewOneIsComplete) {
  const TempDir dir;
  const Tensor t = Tensor::zeros({4}, DType::kF32);
  write_safetensors(dir / "a", {{"old", t}});
  write_safetensors(dir / "a", {{"new", t}});
  EXPECT_TRUE(SafetensorsFile(dir / "a").contains("new"));
  const std::string latin1 = "\xe4";
  EXPECT_THROW(write_safetensors(dir / "a", {{"x", t}}, {{"about", latin1}}), CheckpointError);
  EXPECT_TRUE(SafetensorsFile(dir / "a").contains("new"));
  EXPECT_FALSE(std::filesystem::exists(dir / "a.tmp"));
}

TEST(SafetensorsWriter, RefusesNamesThatCannotBeReadBack) {
  const TempDir dir;
  const Tensor t = Tensor::zeros({4}, DType::kF32);
  EXPECT_THROW(write_safetensors(dir / "a", {{"x", t}, {"x", t}}), InternalError);
  EXPECT_THROW(write_safetensors(dir / "a", {{"", t}}), InternalError);
  EXPECT_THROW(write_safetensors(dir / "a", {{"a\nb", t}}), InternalError);
  EXPECT_THROW(write_safetensors(dir / "a", {{"__metadata__", t}}), InternalError);
  EXPECT_THROW(write_safetensors(dir / "a", {{"x", Tensor()}}), InternalError);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(SafetensorsWriter, NamesThePathAndTheReasonOnFailure) {
  const TempDir dir;
  dir.write("file", "");
  const std::string below_file =
      message_of<CheckpointError>([&] { write_safetensors(dir / "file/a", {}); });
  EXPECT_NE(below_file.find("file/a.tmp': Not a directory"), std::string::npos) << below_file;
  std::filesystem::create_directory(dir / "directory");
  const std::string onto =
      message_of<CheckpointError>([&] { write_safetensors(dir / "directory", {}); });
  EXPECT_NE(onto.find("Is a directory"), std::string::npos) << onto;
  EXPECT_FALSE(std::filesystem::exists(dir / "directory.tmp"));
}

TEST(SafetensorsGolden, ReadsWhatOthersWrote) {
  const SafetensorsFile cell(testing::golden_path("mlstm_cell.safetensors"));
  EXPECT_TRUE(cell.metadata().contains("about"));
  EXPECT_EQ(cell.info("case0.C").dtype, DType::kF64);
  EXPECT_EQ(cell.load("case0.C").shape(), cell.info("case0.C").shape);
  const SafetensorsFile model(testing::golden_path("hf_tiny/model.safetensors"));
  EXPECT_EQ(model.metadata().at("format"), "pt");
  double sum = 0.0;
  for (const std::string& name : model.names()) {
    for (const float x : model.load_as(name, DType::kF32).to_vector<float>()) sum += std::abs(x);
  }
  EXPECT_GT(sum, 0.0);
  EXPECT_LT(sum, std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace carousel
