#include "data/shard_writer.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>

#include "core/base/error.h"
#include "data/shard_corpus.h"

namespace carousel {
namespace {

using Header = std::array<std::int32_t, kShardHeaderWords>;

std::string path_of_shard(const std::string& prefix, std::size_t index) {
  return fmt::format("{}_{:06}.bin", prefix, index);
}

void refuse_existing_shards(const std::string& prefix) {
  namespace fs = std::filesystem;
  const fs::path parent = fs::path(prefix).parent_path();
  const std::string stem = fs::path(prefix).filename().string() + "_";
  std::error_code error;
  for (fs::directory_iterator it(parent.empty() ? "." : parent, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(stem) && name.ends_with(".bin")) {
      throw DataError("{} exists; remove the old shards or choose another prefix",
                      it->path().string());
    }
  }
  if (error) throw DataError("cannot list the folder of {}: {}", prefix, error.message());
}

}  // namespace

ShardWriter::ShardWriter(std::string prefix, std::int32_t vocab_size, std::int64_t shard_tokens)
    : prefix_(std::move(prefix)), vocab_size_(vocab_size), shard_tokens_(shard_tokens) {
  CAROUSEL_CHECK(1 <= vocab_size && vocab_size <= 65536, "shards hold uint16 tokens; vocabulary {}",
                 vocab_size);
  CAROUSEL_CHECK(1 <= shard_tokens && shard_tokens <= std::numeric_limits<std::int32_t>::max(),
                 "{} tokens a shard", shard_tokens);
  refuse_existing_shards(prefix_);
}

void ShardWriter::begin_shard() {
  file_ = std::make_unique<AtomicFile>(path_of_shard(prefix_, paths_.size()));
  const Header empty{};  // filled in when the shard is complete
  file_->write(std::as_bytes(std::span(empty)));
  in_shard_ = 0;
}

void ShardWriter::end_shard() {
  Header header{};
  header[0] = kShardMagic;
  header[1] = kShardVersion;
  header[2] = static_cast<std::int32_t>(in_shard_);
  file_->write_front(std::as_bytes(std::span(header)));
  file_->commit();
  file_.reset();
  paths_.push_back(path_of_shard(prefix_, paths_.size()));
}

void ShardWriter::append(std::span<const std::int32_t> tokens) {
  std::array<std::uint16_t, 1 << 15> buffer;
  while (!tokens.empty()) {
    if (!file_) begin_shard();
    const auto n = std::min(
        {tokens.size(), buffer.size(), static_cast<std::size_t>(shard_tokens_ - in_shard_)});
    for (std::size_t i = 0; i < n; ++i) {
      if (tokens[i] < 0 || tokens[i] >= vocab_size_) {
        throw DataError("token {} for {} is not in the vocabulary of {}", tokens[i],
                        path_of_shard(prefix_, paths_.size()), vocab_size_);
      }
      buffer[i] = static_cast<std::uint16_t>(tokens[i]);
    }
    file_->write(std::as_bytes(std::span(buffer).first(n)));
    in_shard_ += static_cast<std::int64_t>(n);
    tokens = tokens.subspan(n);
    if (in_shard_ == shard_tokens_) end_shard();
  }
}

std::vector<std::string> ShardWriter::finish() {
  if (file_) end_shard();
  if (paths_.empty())
    throw DataError("no tokens for shards {}_*.bin; is the input empty?", prefix_);
  return paths_;
}

}  // namespace carousel
