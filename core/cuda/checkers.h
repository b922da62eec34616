// What memory checkers cannot see for themselves.
#pragma once

#include "core/cuda/stream.h"

namespace carousel::cuda {

/// Tells compute-sanitizer's initcheck, through NVTX, that the stream's work so far has written
/// `bytes` at `data`: it does not see what the copy engine stores. Without a tool nothing happens.
void mark_written(const Stream& stream, const void* data, std::size_t bytes);

}  // namespace carousel::cuda
