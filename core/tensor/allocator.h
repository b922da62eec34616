// The caching allocator: freed blocks are kept and reused, so that a training step that repeats
// asks the driver for nothing. Every allocation has a role, and the tables of `carousel plan` and
// of out-of-memory errors are sums over roles.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/tensor/device.h"

namespace carousel {

enum class Role : std::uint8_t {
  kParameters,   ///< weights in compute precision, and their float32 masters
  kGradients,    ///< float32 gradient arenas
  kOptimizer,    ///< Adam moments
  kActivations,  ///< op outputs and what the tape saves
  kWorkspace,    ///< scratch inside one op
  kState,        ///< recurrent state of generation
  kData,         ///< token batches
  kOther,
};
inline constexpr int kNumRoles = 8;

std::string_view name_of(Role role);

/// Sets the role of all allocations made in this thread while it lives.
class RoleScope {
 public:
  explicit RoleScope(Role role);
  ~RoleScope();
  RoleScope(const RoleScope&) = delete;
  RoleScope& operator=(const RoleScope&) = delete;

 private:
  Role previous_;
};

/// Bytes in use per role, and what the allocator holds from the device.
struct MemoryStats {
  std::array<std::size_t, kNumRoles> used{};  ///< live bytes now, by role
  std::array<std::size_t, kNumRoles> peak{};  ///< each role's own peak
  std::size_t total_used = 0;                 ///< live bytes now
  std::size_t total_peak = 0;                 ///< peak of total_used
  std::size_t reserved = 0;                   ///< live and cached bytes held from the device
  std::uint64_t device_allocations = 0;       ///< calls that reached the device's allocator
};

/// A block handed out by the allocator.
struct Block {
  void* pointer = nullptr;
  std::size_t bytes = 0;  ///< rounded size
  Role role = Role::kOther;
};

/// Allocates on `device` under the thread's current role. Thread-safe. On exhaustion first drops
/// the cache and retries, then throws OutOfMemoryError with the size, the role, the table and what
/// to change.
Block allocate_block(Device device, std::size_t bytes);
/// Returns the block to the cache.
void release_block(Device device, const Block& block);

MemoryStats memory_stats(Device device);
/// Sets every peak to the present use.
void reset_peak_memory(Device device);
/// Gives all cached blocks back to the device.
void drop_memory_cache(Device device);
/// While on, every new block is filled with 0xFF bytes (NaN in all floating dtypes): for tests.
void set_poison_new_memory(bool on);
/// While off, every block is of the very size asked for, comes from the device and goes back to it
/// at once, so that a memory checker sees each tensor's own bounds and life: for tests.
void set_memory_cache(bool on);

}  // namespace carousel
