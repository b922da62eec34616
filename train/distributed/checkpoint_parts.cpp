#include "train/distributed/checkpoint_parts.h"

#include <sstream>

namespace carousel {
namespace {

std::string key_of(std::int64_t save, std::string_view what) {
  return fmt::format("save/{}/{}", save, what);
}

}  // namespace

CheckpointParts::CheckpointParts(comm::Communicator& communicator, std::int64_t save)
    : communicator_(communicator), save_(save) {}

void CheckpointParts::begin(const std::filesystem::path& directory) {
  communicator_.publish(key_of(save_, "directory"), directory.string());
}

std::map<std::string, FileRecord> CheckpointParts::finish() {
  std::map<std::string, FileRecord> records;
  const int world = communicator_.world_size();
  for (int r = 1; r < world; ++r) {
    std::istringstream text(
        communicator_.await(key_of(save_, std::to_string(r)), "a part of the checkpoint"));
    FileRecord record;
    if (!(text >> record.bytes >> record.xxh3)) {
      throw PeerError("rank {} sent no record of its part of the checkpoint", r);
    }
    records[optimizer_part_name(r, world)] = record;
  }
  return records;
}

void write_checkpoint_part(comm::Communicator& communicator, std::int64_t save,
                           const std::vector<NamedTensor>& optimizer) {
  const std::filesystem::path directory =
      communicator.await(key_of(save, "directory"), "the checkpoint's directory");
  const std::string name = optimizer_part_name(communicator.rank(), communicator.world_size());
  const FileRecord record = write_hashed(
      directory / name, [&](OutputFile& file) { write_safetensors(file, optimizer, {}); });
  communicator.publish(key_of(save, std::to_string(communicator.rank())),
                       fmt::format("{} {}", record.bytes, record.xxh3));
}

}  // namespace carousel
