#include "core/cuda/checkers.h"

#include <nvtx3/nvToolsExtMem.h>
#include <nvtx3/nvToolsExtMemCudaRt.h>

namespace carousel::cuda {

void mark_written(const Stream& stream, const void* data, std::size_t bytes) {
  if (data == nullptr || bytes == 0) return;
  static const nvtxDomainHandle_t domain = nvtxDomainCreateA("carousel");
  nvtxMemVirtualRangeDesc_t range{};
  range.size = bytes;
  range.ptr = data;
  nvtxMemMarkInitializedBatch_t batch{};
  batch.extCompatID = NVTX_EXT_COMPATID_MEM;
  batch.structSize = sizeof(batch);
  batch.regionType = NVTX_MEM_TYPE_VIRTUAL_ADDRESS;
  batch.regionDescCount = 1;
  batch.regionDescElementSize = sizeof(range);
  batch.regionDescElements = &range;
  nvtxMemCudaMarkInitialized(domain, stream.handle(), 0, &batch);
}

}  // namespace carousel::cuda
