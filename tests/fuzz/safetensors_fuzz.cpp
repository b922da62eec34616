// Feeds arbitrary bytes to the safetensors reader: it accepts them or throws CheckpointError, and
// what it accepts lies within the bytes. Start from the golden files' headers:
//   safetensors_fuzz -max_len=16384 -max_total_time=300 CORPUS tests/golden tests/golden/hf_tiny
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "core/base/error.h"
#include "core/tensor/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace carousel;
  try {
    const auto header = parse_safetensors_header("fuzz", std::as_bytes(std::span(data, size)));
    std::uint64_t total = 0;
    for (const auto& [name, info] : header.tensors) {
      if (info.offset > size || info.bytes > size - info.offset) std::abort();
      if (static_cast<std::uint64_t>(info.shape.numel()) * size_of(info.dtype) != info.bytes) {
        std::abort();
      }
      total += info.bytes;
    }
    if (total > size) std::abort();
  } catch (const CheckpointError&) {
  }
  return 0;
}
