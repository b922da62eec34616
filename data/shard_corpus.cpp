#include "data/shard_corpus.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/base/error.h"

namespace carousel {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are mapped as they are");

std::int32_t header_word(const MappedFile& file, std::size_t i) {
  std::int32_t word = 0;
  std::memcpy(&word, file.bytes().data() + 4 * i, sizeof word);
  return word;
}

[[noreturn]] void throw_wrong_magic(const std::string& path, std::int32_t magic) {
  const auto swapped =
      static_cast<std::int32_t>(__builtin_bswap32(static_cast<std::uint32_t>(magic)));
  const char* hint =
      swapped == kShardMagic ? "the bytes are in big-endian order; write it again as little-endian"
      : magic == 20240801    ? "this is a shard of 32-bit tokens, which are not supported"
                             : "is it a headerless array of uint16? Write it again with a header";
  throw DataError("{}: magic number {} at offset 0, expected {}: {}", path, magic, kShardMagic,
                  hint);
}

/// The number of tokens, after all checks of header and size.
std::int64_t checked_token_count(const MappedFile& file) {
  const std::string path = file.path().string();
  const auto bytes = static_cast<std::int64_t>(file.bytes().size());
  if (bytes < kShardHeaderBytes) {
    throw DataError(
        "{}: {} bytes, shorter than a shard's header of {}; the file is cut short or no "
        "token shard",
        path, bytes, kShardHeaderBytes);
  }
  if (header_word(file, 0) != kShardMagic) throw_wrong_magic(path, header_word(file, 0));
  if (header_word(file, 1) != kShardVersion) {
    throw DataError(
        "{}: version {} at offset 4, expected {}; write the shard again in that version", path,
        header_word(file, 1), kShardVersion);
  }
  const std::int64_t count = header_word(file, 2);
  if (count <= 0) {
    throw DataError(
        "{}: token count {} at offset 8; a shard holds at least one token; remove or "
        "rewrite the file",
        path, count);
  }
  const std::int64_t expected = kShardHeaderBytes + 2 * count;
  if (bytes < expected) {
    throw DataError(
        "{}: cut short at offset {}: the header promises {} tokens, which end at offset "
        "{}; copy or write the file again",
        path, bytes, count, expected);
  }
  if (bytes > expected) {
    throw DataError(
        "{}: {} trailing bytes at offset {}, after the {} tokens that the header "
        "promises; copy or write the file again",
        path, bytes - expected, expected, count);
  }
  return count;
}

}  // namespace

ShardCorpus::ShardCorpus(std::span<const std::string> paths, std::int32_t vocab_size) {
  CAROUSEL_CHECK(!paths.empty() && vocab_size > 0, "{} shards, vocabulary of {}", paths.size(),
                 vocab_size);
  vocab_size_ = vocab_size;
  shards_.reserve(paths.size());
  for (const std::string& path : paths) {
    MappedFile file(path, ExitCode::kData);
    const std::int64_t count = checked_token_count(file);
    shards_.push_back({std::move(file), size_, count});
    size_ += count;
  }
}

void ShardCorpus::read_shard(const Shard& shard, std::int64_t begin,
                             std::span<std::int32_t> tokens) const {
  const auto* data =
      reinterpret_cast<const std::uint16_t*>(shard.file.bytes().data() + kShardHeaderBytes);
  std::copy_n(data + begin, tokens.size(), tokens.begin());
  if (vocab_size_ > 0xFFFF) return;
  const auto bad = std::ranges::find_if(tokens, [&](std::int32_t t) { return t >= vocab_size_; });
  if (bad == tokens.end()) return;
  const std::int64_t position = begin + (bad - tokens.begin());
  throw DataError(
      "{}: token {} at offset {} (token {} of the shard) is not in the vocabulary of {}; "
      "vocab_size is too small, or the shard belongs to another tokenizer",
      shard.file.path().string(), *bad, kShardHeaderBytes + 2 * position, position, vocab_size_);
}

void ShardCorpus::read(std::int64_t begin, std::span<std::int32_t> tokens) const {
  CAROUSEL_CHECK(begin >= 0 && begin + static_cast<std::int64_t>(tokens.size()) <= size_,
                 "tokens {}+{} of a corpus of {}", begin, tokens.size(), size_);
  auto shard = std::ranges::upper_bound(shards_, begin, {}, &Shard::first) - 1;
  while (!tokens.empty()) {
    const std::int64_t offset = begin - shard->first;
    const auto n = static_cast<std::size_t>(
        std::min<std::int64_t>(static_cast<std::int64_t>(tokens.size()), shard->count - offset));
    read_shard(*shard, offset, tokens.first(n));
    tokens = tokens.subspan(n);
    begin += static_cast<std::int64_t>(n);
    ++shard;
  }
}

std::string ShardCorpus::describe() const {
  return describe_files(shards_.front().file.path().string(), shards_.back().file.path().string(),
                        shards_.size());
}

}  // namespace carousel
