#include "core/comm/cuda/peer_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>

#include "core/comm/store.h"
#include "core/cuda/error.h"
#include "core/cuda/stream.h"
#include "tests/support/devices.h"

namespace carousel::comm {
namespace {

constexpr int kRanks = 3;
constexpr std::int64_t kPiece = 300'000;
constexpr const char* kRankVariable = "CAROUSEL_TEST_RANK";
constexpr const char* kPortVariable = "CAROUSEL_TEST_PORT";

float value(int rank, int round, std::int64_t element) {
  return static_cast<float>(
      philox_normal({static_cast<std::uint64_t>(rank), static_cast<std::uint32_t>(round), 0},
                    static_cast<std::uint64_t>(element)));
}

// One process of several. They may share a GPU: what connects them is the driver.
class Rank {
 public:
  Rank(int rank, std::uint16_t port)
      : rank_(rank),
        device_{DeviceType::kCuda, rank % cuda_device_count()},
        store_("127.0.0.1", port, Milliseconds{30000}) {
    gather_ = [this](const std::string& mine) {
      const std::string prefix = fmt::format("{}/", gathers_++);
      store_.set(prefix + std::to_string(rank_), mine);
      std::vector<std::string> all;
      for (int r = 0; r < kRanks; ++r) {
        all.push_back(store_.get(prefix + std::to_string(r), Milliseconds{60000}).value());
      }
      return all;
    };
    std::string problem;
    peers_ = PeerMemory::connect(rank, kRanks, device_, gather_, problem);
    if (peers_ == nullptr) throw InternalError("{}", problem);
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~Rank() {
    cudaStreamSynchronize(stream_);
    gather_("done");  // nobody frees what another still writes
    peers_.reset();
    cudaStreamDestroy(stream_);
  }

  void run() {
    const Tensor t = Tensor::empty({kRanks * kPiece}, DType::kF32, device_);
    ASSERT_EQ(peers_->share(t, t.bytes(), gather_), "");
    EXPECT_TRUE(peers_->covers(t));
    EXPECT_FALSE(peers_->covers(t.range(0, {kRanks * 5 + 1})));
    EXPECT_FALSE(peers_->covers(empty_like(t)));
    EXPECT_NE(peers_->share(Tensor::empty({8}, DType::kF32, device_), 0, gather_), "");
    for (int round = 0; round < 6; ++round) {
      // The whole, then a part that begins somewhere.
      const std::int64_t piece = round % 2 == 0 ? kPiece : kPiece / 7;
      const Tensor part = t.range(round % 2 == 0 ? 0 : 192, {kRanks * piece});
      expect_exchange(part, round);
      expect_gather(part, round);
    }
    if (rank_ == 0) {  // the others never come: only release_waits() ends it
      peers_->exchange(t, stream_);
      EXPECT_EQ(cudaStreamQuery(stream_), cudaErrorNotReady);
      peers_->release_waits();
    }
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  }

 private:
  void fill(const Tensor& t, int round) const {
    std::vector<float> host;
    for (std::int64_t i = 0; i < t.numel(); ++i) host.push_back(value(rank_, round, i));
    t.range(0, t.shape()).copy_(Tensor::from<float>(host, t.shape()));
    CUDA_CHECK(cudaStreamSynchronize(cuda::Stream(device_).handle()));
  }

  void expect_exchange(const Tensor& t, int round) {
    fill(t, round);
    const std::vector<const void*> pieces = peers_->exchange(t, stream_);
    const std::int64_t n = t.numel() / kRanks;
    for (int r = 0; r < kRanks; ++r) {
      std::vector<float> got(static_cast<std::size_t>(n));
      CUDA_CHECK(cudaMemcpyAsync(got.data(), pieces[static_cast<std::size_t>(r)],
                                 got.size() * sizeof(float), cudaMemcpyDeviceToHost, stream_));
      CUDA_CHECK(cudaStreamSynchronize(stream_));
      for (std::int64_t i = 0; i < n; ++i) {
        ASSERT_EQ(got[static_cast<std::size_t>(i)], value(r, round, rank_ * n + i))
            << "round " << round << ", from rank " << r << ", element " << i;
      }
    }
  }

  void expect_gather(const Tensor& t, int round) {
    fill(t, round + 100);
    peers_->gather(t, stream_);
    CUDA_CHECK(cudaStreamSynchronize(stream_));
    const std::vector<float> got = t.to_vector<float>();
    const std::int64_t n = t.numel() / kRanks;
    for (std::int64_t i = 0; i < t.numel(); ++i) {
      ASSERT_EQ(got[static_cast<std::size_t>(i)], value(static_cast<int>(i / n), round + 100, i))
          << "round " << round << ", element " << i;
    }
  }

  int rank_;
  Device device_;
  TcpStore store_;
  int gathers_ = 0;
  PeerMemory::Gather gather_;
  std::unique_ptr<PeerMemory> peers_;
  cudaStream_t stream_ = nullptr;
};

// Runs this program again, for one test alone, and returns what it printed if it failed.
std::string run_as_rank(int rank, std::uint16_t port) {
  const std::string command =
      fmt::format("{}={} {}={} '{}' --gtest_filter=CudaPeerMemory.* 2>&1", kRankVariable, rank,
                  kPortVariable, port, std::filesystem::read_symlink("/proc/self/exe").string());
  std::FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return "popen failed";
  std::string output;
  for (char buffer[4096]; std::fgets(buffer, sizeof buffer, pipe) != nullptr;) output += buffer;
  return ::pclose(pipe) == 0 ? "" : output;
}

TEST(CudaPeerMemory, MovesThePiecesOfAllRanks) {
  CAROUSEL_REQUIRE_CUDA();
  if (const char* rank = std::getenv(kRankVariable)) {
    Rank(std::atoi(rank), static_cast<std::uint16_t>(std::atoi(std::getenv(kPortVariable)))).run();
    return;
  }
  const StoreServer server(0);
  std::vector<std::future<std::string>> ranks;
  for (int r = 0; r < kRanks; ++r) {
    ranks.push_back(std::async(std::launch::async, run_as_rank, r, server.port()));
  }
  for (auto& rank : ranks) EXPECT_EQ(rank.get(), "");
}

}  // namespace
}  // namespace carousel::comm
