// What a run tells TensorBoard: event files in its own format, written without it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "train/run_file.h"

namespace carousel {

/// CRC-32C (Castagnoli), as in RFC 3720.
std::uint32_t crc32c(std::string_view bytes);

/// A TFRecord: u64 length, its masked CRC, `data`, its masked CRC; little-endian.
std::string tfrecord(std::string_view data);

/// The curve of a key of metrics.jsonl: "loss" is "train/loss", "val_loss" is "eval/loss", and
/// "checkpoint_stall_ms" is "checkpoint/stall_ms".
std::string scalar_tag(std::string_view key);

/// An event file of one process: TFRecords of Event messages (tensorflow/core/util/event.proto).
class EventFile {
 public:
  /// Creates events.out.tfevents.<seconds>.<host>.<pid> in `directory`, which it makes. TensorBoard
  /// reads files in the order of their names; the new one comes last, whatever the clock says. It
  /// begins with the word that the run starts behind `resumed_step`, at which TensorBoard drops
  /// what older files say of later steps: these are done again. Throws UsageError.
  EventFile(const std::filesystem::path& directory, std::int64_t resumed_step);
  /// Adds every number of a record of metrics.jsonl to its curve. Throws UsageError if the disk is
  /// full.
  void write(const nlohmann::json& record);

 private:
  GrowingFile file_;
};

}  // namespace carousel
