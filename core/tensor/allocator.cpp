#include "core/tensor/allocator.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>

#include "core/base/error.h"

namespace carousel {
namespace {

thread_local Role current_role = Role::kOther;
std::atomic<bool> poison{false};
std::atomic<bool> caching{true};

double mib(std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

std::string describe(const MemoryStats& stats) {
  std::string table;
  for (std::size_t r = 0; r < kNumRoles; ++r) {
    if (stats.used[r] == 0) continue;
    table +=
        fmt::format("\n  {:<12} {:>10.1f} MiB", name_of(static_cast<Role>(r)), mib(stats.used[r]));
  }
  return table;
}

// How full the device is, and by how much of it through other programs.
std::string describe(const DeviceMemory& memory, std::size_t own) {
  if (memory.total == 0) return "";
  const std::size_t used = memory.total - memory.free;
  return fmt::format("\nthe device has {:.1f} MiB; {:.1f} MiB are used outside these tensors",
                     mib(memory.total), mib(used - std::min(used, own)));
}

class CachingAllocator {
 public:
  explicit CachingAllocator(Device device) : device_(device) {}

  Block allocate(std::size_t bytes) {
    const std::size_t rounded = caching ? round_up(bytes) : std::max<std::size_t>(bytes, 1);
    const std::lock_guard lock(mutex_);
    Block block{take_cached(rounded), rounded, current_role};
    if (block.pointer == nullptr) {
      block.pointer = backend_for(device_.type).allocate(device_, rounded);
      ++stats_.device_allocations;
      if (block.pointer == nullptr) {
        drop_cache_locked();
        block.pointer = backend_for(device_.type).allocate(device_, rounded);
      }
      if (block.pointer == nullptr) {
        throw OutOfMemoryError(
            "out of memory on {}: {:.1f} MiB more for {} on top of:{}{}\n"
            "lower micro_batch_size (the results stay the same), turn on recompute, or reduce "
            "data.seq_len or the model; `carousel plan` shows what a run needs",
            to_string(device_), mib(bytes), name_of(current_role), describe(stats_),
            describe(backend_for(device_.type).memory(device_), stats_.reserved));
      }
      stats_.reserved += rounded;
    } else {
      block.bytes = taken_bytes_;
    }
    const auto r = static_cast<std::size_t>(block.role);
    stats_.used[r] += block.bytes;
    stats_.peak[r] = std::max(stats_.peak[r], stats_.used[r]);
    stats_.total_used += block.bytes;
    stats_.total_peak = std::max(stats_.total_peak, stats_.total_used);
    return block;
  }

  void release(const Block& block) {
    const std::lock_guard lock(mutex_);
    stats_.used[static_cast<std::size_t>(block.role)] -= block.bytes;
    stats_.total_used -= block.bytes;
    if (caching) {
      cache_.emplace(block.bytes, block.pointer);
    } else {
      backend_for(device_.type).release(device_, block.pointer, block.bytes);
      stats_.reserved -= block.bytes;
    }
  }

  MemoryStats stats() {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    const std::lock_guard lock(mutex_);
    stats_.peak = stats_.used;
    stats_.total_peak = stats_.total_used;
  }

  void drop_cache() {
    const std::lock_guard lock(mutex_);
    drop_cache_locked();
  }

 private:
  static std::size_t round_up(std::size_t bytes) {
    const std::size_t unit = bytes < (std::size_t{1} << 20) ? 512 : std::size_t{64} << 10;
    if (bytes > SIZE_MAX - unit) throw OutOfMemoryError("an allocation of {} bytes", bytes);
    return std::max<std::size_t>((bytes + unit - 1) / unit * unit, unit);
  }

  // Best fit among cached blocks at most an eighth larger than asked for; nullptr if none.
  void* take_cached(std::size_t rounded) {
    const auto it = cache_.lower_bound(rounded);
    if (it == cache_.end() || it->first > rounded + rounded / 8) return nullptr;
    taken_bytes_ = it->first;
    void* p = it->second;
    cache_.erase(it);
    return p;
  }

  void drop_cache_locked() {
    if (cache_.empty()) return;
    DeviceBackend& backend = backend_for(device_.type);
    backend.synchronize(device_);
    for (const auto& [bytes, pointer] : cache_) {
      backend.release(device_, pointer, bytes);
      stats_.reserved -= bytes;
    }
    cache_.clear();
  }

  Device device_;
  std::mutex mutex_;
  std::multimap<std::size_t, void*> cache_;
  std::size_t taken_bytes_ = 0;
  MemoryStats stats_;
};

CachingAllocator& allocator_for(Device device) {
  static std::mutex mutex;
  // Never destroyed: tensors with static lifetime may still be released at exit.
  static auto& all = *new std::map<std::pair<DeviceType, int>, std::unique_ptr<CachingAllocator>>;
  const std::lock_guard lock(mutex);
  auto& slot = all[{device.type, device.index}];
  if (slot == nullptr) slot = std::make_unique<CachingAllocator>(device);
  return *slot;
}

}  // namespace

std::string_view name_of(Role role) {
  constexpr std::string_view kNames[kNumRoles] = {
      "parameters", "gradients", "optimizer", "activations", "workspace", "state", "data", "other"};
  return kNames[static_cast<std::size_t>(role)];
}

RoleScope::RoleScope(Role role) : previous_(current_role) { current_role = role; }
RoleScope::~RoleScope() { current_role = previous_; }

Block allocate_block(Device device, std::size_t bytes) {
  const Block block = allocator_for(device).allocate(bytes);
  if (poison.load(std::memory_order_relaxed)) {
    backend_for(device.type).fill_bytes(device, block.pointer, 0xFF, block.bytes);
  }
  return block;
}

void release_block(Device device, const Block& block) { allocator_for(device).release(block); }
MemoryStats memory_stats(Device device) { return allocator_for(device).stats(); }
void reset_peak_memory(Device device) { allocator_for(device).reset_peak(); }
void drop_memory_cache(Device device) { allocator_for(device).drop_cache(); }
void set_poison_new_memory(bool on) { poison = on; }
void set_memory_cache(bool on) { caching = on; }

}  // namespace carousel
