// Token shards in llm.c's .bin form, memory-mapped.
//
// A shard is a header of 256 little-endian int32 words (magic 20240520, version 1, number of
// tokens, zeros), then the tokens as uint16. Source: llm.c, dev/data/data_common.py.
#pragma once

#include "core/base/file.h"
#include "data/corpus.h"

namespace carousel {

inline constexpr std::int32_t kShardMagic = 20240520;
inline constexpr std::int32_t kShardVersion = 1;
inline constexpr std::int64_t kShardHeaderWords = 256;
inline constexpr std::int64_t kShardHeaderBytes = 4 * kShardHeaderWords;

/// Shards in the order given, read as one sequence; a document may run over a shard's end. Tokens
/// stay on disk and are checked against the vocabulary when they are read.
class ShardCorpus final : public Corpus {
 public:
  /// Throws DataError if a file is missing, has a wrong header or not exactly the size that its
  /// header promises.
  ShardCorpus(std::span<const std::string> paths, std::int32_t vocab_size);

  void read(std::int64_t begin, std::span<std::int32_t> tokens) const override;
  std::string describe() const override;

 private:
  struct Shard {
    MappedFile file;
    std::int64_t first;  // position of its first token in the corpus
    std::int64_t count;
  };

  void read_shard(const Shard& shard, std::int64_t begin, std::span<std::int32_t> tokens) const;

  std::vector<Shard> shards_;
};

}  // namespace carousel
