// How fast checkpoints are saved and verified, against plain writing and reading of as many bytes,
// and how long training stands still for an asynchronous one of that size.
// Usage: checkpoint DIRECTORY [MIB=512]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/directory.h"
#include "train/checkpoint/snapshot.h"

namespace carousel {
namespace {

template <class F>
double seconds(F&& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void run(const std::filesystem::path& directory, std::int64_t mib) {
  std::filesystem::create_directories(directory);
  const Tensor tensor = Tensor::zeros({mib << 18}, DType::kF32);
  const auto bytes = std::as_bytes(std::span(tensor.data<float>(), std::size_t(tensor.numel())));
  const double gigabytes = static_cast<double>(bytes.size()) / 1e9;
  const auto plain = [&] {
    OutputFile file(directory / "plain");
    file.write(bytes);
    file.finish();
  };
  const CheckpointContents contents{.model = {{"weight", tensor}}};
  Snapshot snapshot({tensor});
  for (std::int64_t round = 1; round <= 3; ++round) {
    const double write = seconds(plain);
    const double stall = seconds([&] { snapshot.take(); });
    const double save = seconds([&] { save_checkpoint(directory, round, contents); });
    const double read = seconds([&] { hash_file(directory / "plain"); });
    const double open = seconds([&] { Checkpoint::open(directory / checkpoint_name(round)); });
    std::printf(
        "write + fsync %.2f GB/s, save %.2f GB/s (ratio %.2f); read %.2f, verify %.2f GB/s; stall "
        "%.0f ms (%.2f GB/s) in place of %.0f\n",
        gigabytes / write, gigabytes / save, write / save, gigabytes / read, gigabytes / open,
        1e3 * stall, gigabytes / stall, 1e3 * save);
    std::filesystem::remove_all(directory / checkpoint_name(round));
    std::filesystem::remove(directory / "plain");
  }
}

}  // namespace
}  // namespace carousel

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: checkpoint DIRECTORY [MIB]\n");
    return 2;
  }
  carousel::run(argv[1], argc > 2 ? std::atoll(argv[2]) : 512);
}
