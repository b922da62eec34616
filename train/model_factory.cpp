#include "train/model_factory.h"

#include "core/base/log.h"
#include "core/kernels/register.h"
#include "layers/xlstm.h"
#include "layers/xlstm_large.h"

namespace carousel {

std::unique_ptr<LanguageModel> make_model(const ModelConfig& config, std::int64_t tokenizer_vocab) {
  const std::int64_t vocab = config.vocab_size.value_or(tokenizer_vocab);
  if (vocab < tokenizer_vocab) {
    throw UsageError(
        "model.vocab_size is {}, but the tokenizer has {} tokens; leave it out or raise it", vocab,
        tokenizer_vocab);
  }
  switch (config.family) {
    case ModelFamily::kXlstmLarge: {
      XlstmLargeConfig c = config.xlstm_large;
      c.vocab_size = vocab;
      return std::make_unique<XlstmLarge>(c);
    }
    case ModelFamily::kXlstm: {
      XlstmConfig c = config.xlstm;
      c.vocab_size = vocab;
      return std::make_unique<Xlstm>(c);
    }
  }
  throw InternalError("model family {}", static_cast<int>(config.family));
}

Device choose_device(DeviceChoice choice, int index) {
  const bool has_cuda = has_backend(DeviceType::kCuda);
  if (choice == DeviceChoice::kUseCpu) return kCpu;
  if (has_cuda) return {DeviceType::kCuda, index};
  if (choice == DeviceChoice::kAuto) {
    log::info("device auto: using the CPU: {}", cuda_status());
    return kCpu;
  }
  throw UsageError("device is cuda, but {}; set device: cpu or auto", cuda_status());
}

}  // namespace carousel
