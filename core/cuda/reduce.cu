#include "core/cuda/reduce.cuh"

#include "core/cuda/kernels.h"
#include "core/kernels/matmul.h"

namespace carousel::cuda {
namespace {

void column_sum_kernel(const ColumnSumArgs& args) {
  dispatch_floating("column_sum", args.x.dtype(), [&]<class T>() {
    const Stream stream(args.out.device());
    const std::int64_t columns = args.x.dim(1);
    const T* x = data<T>(args.x);
    float* out = data<float>(args.out);
    const MatrixTerm<T> term{x, columns};
    if (columns % kVector<T> == 0 && aligned16(x)) {
      reduce_columns<kVector<T>>("column_sum", stream, term, args.x.dim(0), columns, out);
    } else {
      reduce_columns<1>("column_sum", stream, term, args.x.dim(0), columns, out);
    }
  });
}

}  // namespace

void add_column_sums(const Stream& stream, const float* x, std::int64_t rows, std::int64_t columns,
                     float* out) {
  // One column a thread: there are few rows, and parallelism is what counts.
  const MatrixTerm<float> term{x, columns};
  launch("add_column_sums", stream,
         {dim3(grid_size(columns, kReduceLanes)), dim3(kReduceLanes, kPartialRows)},
         column_reduce_kernel<1, kPartialRows, MatrixTerm<float>>, term, rows, columns, rows, out,
         true);
}

void register_reduce() { column_sum.set(DeviceType::kCuda, column_sum_kernel); }

}  // namespace carousel::cuda
