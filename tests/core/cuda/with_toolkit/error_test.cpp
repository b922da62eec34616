// What CUDA's error codes become, without needing a GPU.
#include "core/cuda/error.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace carousel::cuda {
namespace {

struct Meaning {
  cudaError_t status;
  ExitCode code;
  const char* remedy;
};

const std::vector<Meaning> kMeanings = {
    {cudaErrorMemoryAllocation, ExitCode::kOutOfMemory, "lower micro_batch_size"},
    {cudaErrorNoDevice, ExitCode::kUsage, "set device: cpu"},
    {cudaErrorInvalidDevice, ExitCode::kUsage, "CUDA_VISIBLE_DEVICES"},
    {cudaErrorInsufficientDriver, ExitCode::kUsage, "the NVIDIA driver is older"},
    {cudaErrorNoKernelImageForDevice, ExitCode::kUsage, "CMAKE_CUDA_ARCHITECTURES"},
    {cudaErrorECCUncorrectable, ExitCode::kPeer, "resumes from its newest checkpoint"},
    {cudaErrorDevicesUnavailable, ExitCode::kPeer, "Xid"},
    {cudaErrorIllegalAddress, ExitCode::kInternal, "CAROUSEL_DEBUG_SYNC=1"},
};

template <class F>
void expect_error(F&& f, ExitCode code, const std::string& part) {
  try {
    f();
    ADD_FAILURE() << "nothing was thrown for " << part;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

TEST(DeviceErrors, EachSaysWhatFailedAndWhatToDo) {
  for (const Meaning& m : kMeanings) {
    const auto fail = [&] { throw_cuda_error(m.status, "the call", "file.cpp", 12); };
    expect_error(fail, m.code, m.remedy);
    expect_error(fail, m.code, std::string("the call: ") + cudaGetErrorString(m.status));
    expect_error(fail, m.code, "file.cpp:12");
  }
}

TEST(DeviceErrors, CublasTellsMemoryFromTheRest) {
  const auto fail = [](cublasStatus_t status) {
    return [status] { throw_cublas_error(status, "the product", "file.cpp", 12); };
  };
  expect_error(fail(CUBLAS_STATUS_ALLOC_FAILED), ExitCode::kOutOfMemory, "micro_batch_size");
  expect_error(fail(CUBLAS_STATUS_ARCH_MISMATCH), ExitCode::kUsage, "8.0 or newer");
  expect_error(fail(CUBLAS_STATUS_NOT_SUPPORTED), ExitCode::kInternal, "the product");
}

}  // namespace
}  // namespace carousel::cuda
