#include "train/environment.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/parallel.h"
#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

TEST(Environment, NamesProgramMachineAndLibraries) {
  const testing::TempDir dir;
  write_environment(dir / "env.json");
  const auto json = nlohmann::json::parse(testing::read_file(dir / "env.json"));
  EXPECT_EQ(json["time"].get<std::string>().size(), std::string("2026-01-01T00:00:00Z").size());
  EXPECT_NE(json["command"][0].get<std::string>().find("train_test"), std::string::npos);
  EXPECT_EQ(version_text().find("carousel " + json["version"].get<std::string>()), 0u);
  EXPECT_EQ(json["cpu"]["threads"], num_threads());
  EXPECT_GT(json["memory_bytes"].get<std::size_t>(), std::size_t{1} << 20);
  for (const char* key : {"host", "system", "cuda"}) {
    EXPECT_FALSE(json[key].get<std::string>().empty()) << key;
  }
  EXPECT_FALSE(json["build"]["compiler"].get<std::string>().empty());
  for (const auto& [name, version] : json["libraries"].items()) {
    EXPECT_FALSE(version.get<std::string>().empty()) << name;
  }
}

TEST(Environment, UnwritablePlacesAreNamed) {
  testing::expect_error<UsageError>([] { write_environment("/nowhere/env.json"); },
                                    {"/nowhere/env.json", "No such file"});
}

TEST(Environment, MemoryIsThatOfTheMachine) {
  const MemoryInfo memory = memory_info();
  EXPECT_GT(memory.available, std::size_t{1} << 20);
  EXPECT_LE(memory.available, memory.total);
}

}  // namespace
}  // namespace carousel
