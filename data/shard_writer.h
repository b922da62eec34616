// Writes token shards that ShardCorpus (and llm.c) reads.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/files.h"

namespace carousel {

/// Splits a stream of tokens over files PREFIX_000000.bin, PREFIX_000001.bin, …; each appears under
/// its name only when it is complete. Not thread-safe.
class ShardWriter {
 public:
  /// 1 <= shard_tokens < 2^31, 1 <= vocab_size <= 65536. Throws DataError if shards of this prefix
  /// exist: a mixture of old and new ones would be read as one corpus.
  ShardWriter(std::string prefix, std::int32_t vocab_size, std::int64_t shard_tokens = 100'000'000);

  /// Throws DataError at a token that is not in the vocabulary, or if the disk refuses.
  void append(std::span<const std::int32_t> tokens);

  /// Completes the last shard and returns all paths. Without finish() the last, incomplete shard is
  /// dropped. Throws DataError if no token was appended.
  std::vector<std::string> finish();

 private:
  void begin_shard();
  void end_shard();

  std::string prefix_;
  std::int32_t vocab_size_;
  std::int64_t shard_tokens_;
  std::unique_ptr<AtomicFile> file_;  // the shard being written, if any
  std::int64_t in_shard_ = 0;         // tokens written to it
  std::vector<std::string> paths_;
};

}  // namespace carousel
