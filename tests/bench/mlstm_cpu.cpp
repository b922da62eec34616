// Speed of the mLSTM cell on the CPU, at the shape of a 10M-parameter model's layer, against the
// same process's matrix products: milliseconds of each form's forward and backward, and the share
// of a 1024³ sgemm's FLOP/s that the chunkwise form's useful FLOPs reach. Usage: mlstm_cpu [B S NH
// DQK DV chunk]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "core/base/parallel.h"
#include "core/kernels/matmul.h"
#include "core/kernels/register.h"
#include "layers/mlstm/kernels.h"
#include "layers/register.h"
#include "tests/support/backward_args.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using mlstm::CellBackwardArgs;
using mlstm::CellForwardArgs;
using mlstm::Form;
using testing::random_normal;

// Median over repetitions, the first of which warms up.
template <class Work>
double milliseconds(Work&& work) {
  std::vector<double> times;
  for (int i = 0; i < 16; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    if (i > 0) times.push_back(time.count());
  }
  std::ranges::nth_element(times, times.begin() + 7);
  return times[7];
}

double sgemm_gflops() {
  const Tensor a = random_normal<float>({1024, 1024}, 1);
  const Tensor b = random_normal<float>({1024, 1024}, 2);
  const Tensor c = empty_like(a);
  return 2.0 * 1024 * 1024 * 1024 / 1e6 /
         milliseconds([&] { matmul(kCpu, {.a = a, .b = b, .out = c}); });
}

struct Sizes {
  std::int64_t batch = 8, time = 256, heads = 4, dqk = 48, dv = 96, chunk = 64;
};

CellForwardArgs forward_args(const Sizes& z) {
  const Shape qk{z.batch, z.time, z.heads, z.dqk};
  const Shape vh{z.batch, z.time, z.heads, z.dv};
  const Shape gates{z.batch, z.time, z.heads};
  const std::int64_t chunks = (z.time + z.chunk - 1) / z.chunk;
  const auto empty = [](const Shape& s) { return Tensor::empty(s, DType::kF32); };
  CellForwardArgs args;
  args.in = {.q = random_normal<float>(qk, 1),
             .k = random_normal<float>(qk, 2),
             .v = random_normal<float>(vh, 3),
             .i = random_normal<float>(gates, 4, 1.0, -2.0),
             .f = random_normal<float>(gates, 5, 1.0, 4.0),
             .chunk_size = static_cast<int>(z.chunk)};
  args.h = empty(vh);
  args.normaliser = empty(gates);
  args.denominator_sign = empty(gates);
  args.stabiliser = empty(gates);
  args.c_chunks = empty({z.batch, z.heads, chunks, z.dqk, z.dv});
  args.n_chunks = empty({z.batch, z.heads, chunks, z.dqk});
  args.m_chunks = empty({z.batch, z.heads, chunks});
  return args;
}

CellBackwardArgs backward_args(const CellForwardArgs& forward) {
  CellBackwardArgs args = testing::backward_args(forward);
  args.dh = random_normal<float>(forward.h.shape(), 6);
  args.dq = empty_like(forward.in.q);
  args.dk = empty_like(forward.in.k);
  args.dv = empty_like(forward.in.v);
  args.di = empty_like(forward.in.i);
  args.df = empty_like(forward.in.f);
  return args;
}

void run(const Sizes& z) {
  const double tokens = static_cast<double>(z.batch * z.time * z.heads) / 1e6;
  const auto dqk = static_cast<double>(z.dqk);
  const auto dv = static_cast<double>(z.dv);
  const auto chunk = static_cast<double>(std::min(z.chunk, z.time));
  const double forward_mflop = tokens * (4 * dqk * dv + chunk * (dqk + dv));
  const double backward_mflop = tokens * (8 * dqk * dv + chunk * (3 * dqk + 2 * dv));
  const double gflops = sgemm_gflops();
  std::printf("B%lld S%lld NH%lld dqk%lld dv%lld chunk %lld, %d threads, sgemm %.0f GFLOP/s\n",
              static_cast<long long>(z.batch), static_cast<long long>(z.time),
              static_cast<long long>(z.heads), static_cast<long long>(z.dqk),
              static_cast<long long>(z.dv), static_cast<long long>(z.chunk), num_threads(), gflops);
  const CellForwardArgs forward = forward_args(z);
  const CellBackwardArgs backward = backward_args(forward);
  const char* names[] = {"recurrent", "parallel", "chunkwise"};
  for (const Form form : {Form::kRecurrent, Form::kParallel, Form::kChunkwise}) {
    const auto index = static_cast<std::size_t>(form);
    CellForwardArgs f = forward;
    CellBackwardArgs b = backward;
    if (form != Form::kChunkwise) {
      for (Tensor* states :
           {&f.c_chunks, &f.n_chunks, &f.m_chunks, &b.c_chunks, &b.n_chunks, &b.m_chunks}) {
        *states = {};
      }
    }
    const double forward_ms = milliseconds([&] { mlstm::cell_fwd[index](kCpu, f); });
    const double backward_ms = milliseconds([&] { mlstm::cell_bwd[index](kCpu, b); });
    std::printf("%-10s forward %8.3f ms, backward %8.3f ms\n", names[index], forward_ms,
                backward_ms);
    if (form == Form::kChunkwise) {
      std::printf(
          "chunkwise  at sgemm speed: forward %.3f ms (ratio %.2f), backward %.3f ms (ratio "
          "%.2f)\n",
          forward_mflop / gflops, forward_mflop / gflops / forward_ms, backward_mflop / gflops,
          backward_mflop / gflops / backward_ms);
    }
  }
}

}  // namespace
}  // namespace carousel

int main(int argc, char** argv) {
  carousel::register_cpu_kernels();
  carousel::register_layer_cpu_kernels();
  carousel::Sizes sizes;
  std::int64_t* const fields[] = {&sizes.batch, &sizes.time, &sizes.heads,
                                  &sizes.dqk,   &sizes.dv,   &sizes.chunk};
  for (int i = 1; i < argc && i <= 6; ++i) *fields[i - 1] = std::atoll(argv[i]);
  carousel::run(sizes);
}
