// Batches of sequences, and the one interface through which training and evaluation get them.
#pragma once

#include <cstdint>
#include <string>

#include "core/tensor/tensor.h"

namespace carousel {

/// B sequences of S tokens, on the CPU, under Role::kData.
struct Batch {
  Tensor tokens;   ///< (B,S) i32, the inputs
  Tensor targets;  ///< (B,S) i32, what follows each input, or kIgnoreTarget
  Tensor reset;    ///< (B,S) u8, 1 where a document begins; undefined without document boundaries
  std::int64_t target_count = 0;  ///< targets that are not ignored
};

/// Immutable after construction; batches are pure functions of their arguments and may be made by
/// several threads at once.
class BatchSource {
 public:
  /// num_batches() of a source that never ends.
  static constexpr std::int64_t kEndless = INT64_MAX;

  virtual ~BatchSource() = default;

  /// Sequences in one global batch, over all ranks.
  std::int64_t batch_size() const { return batch_size_; }
  std::int64_t seq_len() const { return seq_len_; }
  /// Tokens and targets are [0, vocab_size()).
  std::int32_t vocab_size() const { return vocab_size_; }
  /// Batches of one pass: kEndless for training.
  std::int64_t num_batches() const { return num_batches_; }

  /// Sequences [begin, end) of global batch `index` (the training step, from 0), a new Batch with
  /// B = end - begin >= 1. The union over disjoint ranges does not depend on how ranks split it.
  /// Throws DataError if the corpus turns out malformed.
  virtual Batch batch(std::int64_t index, std::int64_t begin, std::int64_t end) const = 0;

  /// Tokens of the corpus; 0: the batches are made on the fly.
  virtual std::int64_t corpus_size() const { return 0; }

  /// What the batches are made of, for the log; `steps` > 0 adds the epochs of that many batches.
  virtual std::string describe(std::int64_t steps = 0) const = 0;

 protected:
  BatchSource(std::int64_t batch_size, std::int64_t seq_len, std::int32_t vocab_size,
              std::int64_t num_batches);

  /// Checks batch()'s arguments and allocates the tensors for it, uninitialised.
  Batch new_batch(std::int64_t index, std::int64_t begin, std::int64_t end, bool with_reset) const;

 private:
  std::int64_t batch_size_;
  std::int64_t seq_len_;
  std::int32_t vocab_size_;
  std::int64_t num_batches_;
};

}  // namespace carousel
