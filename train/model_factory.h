// Builds what a configuration asks for.
#pragma once

#include <memory>

#include "core/tensor/device.h"
#include "layers/language_model.h"
#include "train/config/config.h"

namespace carousel {

/// The model of `config` for a tokenizer of `tokenizer_vocab` tokens: model.vocab_size if given
/// (UsageError if it is smaller), else tokenizer_vocab. Parameters are declared, not materialised.
std::unique_ptr<LanguageModel> make_model(const ModelConfig& config, std::int64_t tokenizer_vocab);

/// auto: the first GPU if there is one, else the CPU, which it logs. Throws UsageError with the
/// reason if a GPU is asked for and none can be used.
Device choose_device(DeviceChoice choice, int index = 0);

}  // namespace carousel
