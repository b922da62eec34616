// The backends between processes. A build without a backend's library links a stand-in that throws
// UsageError with the package to install.
#pragma once

#include <memory>

#include "core/comm/communicator.h"

namespace carousel::comm {

/// CPU tensors over TCP, on the network interface by which the store is reached. All ranks must
/// call it; blocks until they are connected. Throws PeerError at the time-out.
std::unique_ptr<Communicator> make_gloo(const GroupOptions& options, std::unique_ptr<Store> store);
/// Tensors of the CUDA device options.device, one device a rank, on a stream of its own.
std::unique_ptr<Communicator> make_nccl(const GroupOptions& options, std::unique_ptr<Store> store);

bool has_gloo();
bool has_nccl();

}  // namespace carousel::comm
