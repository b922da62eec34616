// The files of a checkpoint that other ranks than the first write: their optimizer state, and their
// parts of the weights where those are sharded, of which the first makes model.safetensors.
#pragma once

#include <memory>
#include <vector>

#include "core/comm/communicator.h"
#include "train/checkpoint/checkpoint.h"

namespace carousel {

/// Rank 0's view of the others, for save_checkpoint(). They meet through the store, so that no
/// collective runs meanwhile. The directory must be on a file system that all ranks share.
class CheckpointParts final : public CheckpointPeers {
 public:
  /// `save` counts the checkpoints of this group, from 0, and is the same in all ranks.
  CheckpointParts(comm::Communicator& communicator, std::int64_t save);
  void begin(const std::filesystem::path& directory) override;
  std::map<std::string, FileRecord> finish() override;
  /// What the others hold of the weights, after finish(); the files have no names any more.
  const std::vector<SafetensorsFile>& weights() const { return weights_; }

 private:
  comm::Communicator& communicator_;
  std::int64_t save_;
  std::filesystem::path directory_;
  std::vector<SafetensorsFile> weights_;
};

/// The other ranks' side: writes this rank's optimizer state into the checkpoint that rank 0 is
/// making, and its part of the weights, unless that is empty, for rank 0 to put together. Throws
/// CheckpointError, or PeerError if rank 0 gives up.
void write_checkpoint_part(comm::Communicator& communicator, std::int64_t save,
                           const std::vector<NamedTensor>& optimizer,
                           const std::vector<NamedTensor>& weights);

}  // namespace carousel
