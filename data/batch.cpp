#include "data/batch.h"

#include "core/base/error.h"

namespace carousel {

BatchSource::BatchSource(std::int64_t batch_size, std::int64_t seq_len, std::int32_t vocab_size,
                         std::int64_t num_batches)
    : batch_size_(batch_size),
      seq_len_(seq_len),
      vocab_size_(vocab_size),
      num_batches_(num_batches) {
  CAROUSEL_CHECK(batch_size >= 1 && seq_len >= 1 && vocab_size >= 1 && num_batches >= 1,
                 "batches of {} sequences of {} tokens of {}, {} of them", batch_size, seq_len,
                 vocab_size, num_batches);
}

Batch BatchSource::new_batch(std::int64_t index, std::int64_t begin, std::int64_t end,
                             bool with_reset) const {
  CAROUSEL_CHECK(0 <= index && index < num_batches_, "batch {} of {}", index, num_batches_);
  CAROUSEL_CHECK(0 <= begin && begin < end && end <= batch_size_, "sequences [{}, {}) of {}", begin,
                 end, batch_size_);
  const RoleScope role(Role::kData);
  const Shape shape{end - begin, seq_len_};
  Batch batch;
  batch.tokens = Tensor::empty(shape, DType::kI32);
  batch.targets = Tensor::empty(shape, DType::kI32);
  if (with_reset) batch.reset = Tensor::empty(shape, DType::kU8);
  return batch;
}

}  // namespace carousel
