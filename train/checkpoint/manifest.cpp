#include "train/checkpoint/manifest.h"

#include <fcntl.h>
#include <unistd.h>

#define XXH_INLINE_ALL  // compiled here, with the vector instructions of our target
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

namespace carousel {
namespace {

constexpr const char* kFormat = "carousel-checkpoint";

class Hasher {
 public:
  Hasher() : state_(XXH3_createState(), &XXH3_freeState) {
    CAROUSEL_CHECK(state_ != nullptr, "no memory for a hash");
    XXH3_64bits_reset(state_.get());
  }
  void update(std::span<const std::byte> bytes) {
    XXH3_64bits_update(state_.get(), bytes.data(), bytes.size());
    bytes_ += bytes.size();
  }
  FileRecord record() const { return {bytes_, XXH3_64bits_digest(state_.get())}; }

 private:
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state_;
  std::uint64_t bytes_ = 0;
};

std::string hex(std::uint64_t hash) { return fmt::format("{:016x}", hash); }

std::uint64_t from_hex(const std::string& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || hex(value) != text) {
    throw CheckpointError("'{}' is not a hash of 16 hexadecimal digits", text);
  }
  return value;
}

std::uint64_t unsigned_field(const nlohmann::json& object, const char* key) {
  const nlohmann::json& value = object.at(key);
  if (!value.is_number_unsigned()) throw CheckpointError("{} is not a natural number", key);
  return value.get<std::uint64_t>();
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name[0] != '.' &&
         std::ranges::all_of(name, [](char c) { return c > ' ' && c < 0x7f && c != '/'; });
}

nlohmann::ordered_json body(const Manifest& manifest) {
  nlohmann::ordered_json files = nlohmann::ordered_json::object();
  for (const auto& [name, record] : manifest.files) {
    files[name] = {{"bytes", record.bytes}, {"xxh3", hex(record.xxh3)}};
  }
  return {{"format", kFormat},
          {"version", Manifest::kVersion},
          {"step", manifest.step},
          {"files", std::move(files)}};
}

std::string hash_of(const nlohmann::ordered_json& body) {
  const std::string text = body.dump();
  return hex(XXH3_64bits(text.data(), text.size()));
}

Manifest parse(const nlohmann::json& json) {
  if (json.at("format") != kFormat) {
    throw CheckpointError("its format is not '{}'", kFormat);
  }
  if (const std::uint64_t version = unsigned_field(json, "version");
      version != Manifest::kVersion) {
    throw CheckpointError(
        "format version {}, this program reads {}; use the Carousel that wrote it", version,
        Manifest::kVersion);
  }
  Manifest manifest;
  const std::uint64_t step = unsigned_field(json, "step");
  if (step > INT64_MAX) throw CheckpointError("step {} is too large", step);
  manifest.step = static_cast<std::int64_t>(step);
  for (const auto& [name, record] : json.at("files").items()) {
    if (!is_plain_name(name)) throw CheckpointError("'{}' is not a plain file name", name);
    manifest.files[name] = {unsigned_field(record, "bytes"),
                            from_hex(record.at("xxh3").get<std::string>())};
  }
  // Over the fields as understood: what was not understood makes it fail, as a flipped bit does.
  if (json.at("xxh3") != hash_of(body(manifest)) || json.size() != 5) {
    throw CheckpointError("its contents do not match its own hash");
  }
  return manifest;
}

}  // namespace

FileRecord write_hashed(const std::filesystem::path& path,
                        const std::function<void(OutputFile&)>& write) {
  Hasher hasher;
  OutputFile file(path, [&](std::span<const std::byte> piece) { hasher.update(piece); });
  write(file);
  file.finish();
  return hasher.record();
}

FileRecord hash_file(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) throw CheckpointError("{}", io_error("open", path, errno));
  Hasher hasher;
  std::vector<std::byte> buffer(std::size_t{1} << 18);
  ssize_t got = 0;
  while ((got = ::read(descriptor, buffer.data(), buffer.size())) != 0) {
    if (got > 0) hasher.update(std::span(buffer).first(static_cast<std::size_t>(got)));
    if (got < 0 && errno != EINTR) break;
  }
  const int error = got < 0 ? errno : 0;
  ::close(descriptor);
  if (error != 0) throw CheckpointError("{}", io_error("read", path, error));
  return hasher.record();
}

std::string to_json(const Manifest& manifest) {
  nlohmann::ordered_json json = body(manifest);
  json["xxh3"] = hash_of(json);
  return json.dump(2) + "\n";
}

Manifest parse_manifest(const std::filesystem::path& path, std::string_view text) {
  std::string problem;
  try {
    return parse(nlohmann::json::parse(text));
  } catch (const nlohmann::json::exception& e) {
    problem = std::string(e.what()).substr(0, 300);
  } catch (const CheckpointError& e) {
    problem = e.what();
  }
  throw CheckpointError("'{}' is not a sound manifest: {}", path.string(), problem);
}

std::string verify_files(const std::filesystem::path& directory, const Manifest& manifest,
                         bool read_contents) {
  std::string problems;
  for (const auto& [name, want] : manifest.files) {
    const std::filesystem::path path = directory / name;
    std::error_code error;
    const std::uint64_t bytes = std::filesystem::file_size(path, error);
    if (error) {
      problems += fmt::format("\n  {}: {}", name, error.message());
    } else if (bytes != want.bytes) {
      problems += fmt::format("\n  {}: {} bytes, the manifest says {}", name, bytes, want.bytes);
    } else if (read_contents) {
      try {
        if (const FileRecord got = hash_file(path); got != want) {
          problems += fmt::format("\n  {}: hash {}, the manifest says {}", name, hex(got.xxh3),
                                  hex(want.xxh3));
        }
      } catch (const CheckpointError& e) {
        problems += fmt::format("\n  {}: {}", name, e.what());
      }
    }
  }
  return problems;
}

}  // namespace carousel
