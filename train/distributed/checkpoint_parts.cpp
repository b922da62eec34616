#include "train/distributed/checkpoint_parts.h"

#include <sstream>

namespace carousel {
namespace {

std::string key_of(std::int64_t save, std::string_view what) {
  return fmt::format("save/{}/{}", save, what);
}

// Not part of the checkpoint.
std::string weights_part_name(int rank) { return fmt::format("weights-{:05}.part", rank + 1); }

FileRecord write_tensors(const std::filesystem::path& path,
                         const std::vector<NamedTensor>& tensors) {
  return write_hashed(path, [&](OutputFile& file) { write_safetensors(file, tensors, {}); });
}

}  // namespace

CheckpointParts::CheckpointParts(comm::Communicator& communicator, std::int64_t save)
    : communicator_(communicator), save_(save) {}

void CheckpointParts::begin(const std::filesystem::path& directory) {
  directory_ = directory;
  communicator_.publish(key_of(save_, "directory"), directory.string());
}

std::map<std::string, FileRecord> CheckpointParts::finish() {
  std::map<std::string, FileRecord> records;
  const int world = communicator_.world_size();
  for (int r = 1; r < world; ++r) {
    std::istringstream text(
        communicator_.await(key_of(save_, std::to_string(r)), "a part of the checkpoint"));
    FileRecord record;
    bool has_weights = false;
    if (!(text >> record.bytes >> record.xxh3 >> has_weights)) {
      throw PeerError("rank {} sent no record of its part of the checkpoint", r);
    }
    records[optimizer_part_name(r, world)] = record;
    if (has_weights) {
      const std::filesystem::path path = directory_ / weights_part_name(r);
      weights_.emplace_back(path);
      std::error_code error;
      std::filesystem::remove(path, error);  // what is mapped lives on
      if (error) throw CheckpointError("{}", io_error("delete", path, error.value()));
    }
  }
  return records;
}

void write_checkpoint_part(comm::Communicator& communicator, std::int64_t save,
                           const std::vector<NamedTensor>& optimizer,
                           const std::vector<NamedTensor>& weights) {
  const std::filesystem::path directory =
      communicator.await(key_of(save, "directory"), "the checkpoint's directory");
  const int rank = communicator.rank();
  if (!weights.empty()) write_tensors(directory / weights_part_name(rank), weights);
  const FileRecord record =
      write_tensors(directory / optimizer_part_name(rank, communicator.world_size()), optimizer);
  communicator.publish(key_of(save, std::to_string(rank)),
                       fmt::format("{} {} {:d}", record.bytes, record.xxh3, !weights.empty()));
}

}  // namespace carousel
