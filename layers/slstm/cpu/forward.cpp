// Precision: x and h in T; everything between, the recurrent h included, in compute_t<T>.
#include <limits>
#include <vector>

#include "layers/slstm/cpu/kernels.h"
#include "layers/slstm/cpu/panel_product.h"
#include "layers/slstm/cpu/walk.h"
#include "layers/slstm/pointwise.h"

namespace carousel::slstm {
namespace {

// One group's walk through time: its state and the buffers of one step.
template <class T>
class ForwardWalk {
  using C = cpu::compute_t<T>;

 public:
  ForwardWalk(const CellForwardArgs& args, const Dims& dims, const Group& group)
      : args_(args),
        dims_(dims),
        group_(group),
        product_(args.in.r.data<C>() + group.head * kNumGates * dims.size * dims.size, dims.size,
                 kNumGates * dims.size, true, dims.time),
        h_(buffer(group.rows)),
        c_(buffer(group.rows)),
        n_(buffer(group.rows)),
        m_(buffer(group.rows)),
        recurrent_(static_cast<std::size_t>(group.rows * product_.out_stride())),
        unsaved_(buffer(kNumGates)) {}

  void run() {
    for (std::int64_t row = 0; row < group_.rows; ++row) start(row);
    for (std::int64_t t = 0; t < dims_.time; ++t) {
      if (args_.in.reset.defined()) {
        const std::uint8_t* reset = args_.in.reset.data<std::uint8_t>();
        for (std::int64_t row = 0; row < group_.rows; ++row) {
          if (reset[(group_.begin + row) * dims_.time + t] != 0) clear(row);
        }
      }
      product_(group_.rows, h_.data(), dims_.size, recurrent_.data());
      for (std::int64_t row = 0; row < group_.rows; ++row) step_row(t, row);
    }
    for (std::int64_t row = 0; row < group_.rows; ++row) finish(row);
  }

 private:
  std::vector<C> buffer(std::int64_t rows) const {
    return std::vector<C>(static_cast<std::size_t>(rows * dims_.size));
  }

  void clear(std::int64_t row) {
    const auto fill = [&](std::vector<C>& state, C value) {
      std::fill_n(state.data() + row * dims_.size, dims_.size, value);
    };
    fill(h_, C{0});
    fill(c_, C{0});
    fill(n_, C{0});
    fill(m_, -std::numeric_limits<C>::infinity());
  }

  void start(std::int64_t row) {
    if (!args_.in.h0.defined()) return clear(row);
    const std::int64_t from = state_offset(dims_, group_.begin + row, group_.head);
    const auto load = [&](const Tensor& initial, std::vector<C>& state) {
      std::copy_n(initial.data<C>() + from, dims_.size, state.data() + row * dims_.size);
    };
    load(args_.in.h0, h_);
    load(args_.in.c0, c_);
    load(args_.in.n0, n_);
    load(args_.in.m0, m_);
  }

  void finish(std::int64_t row) const {
    const std::int64_t to = state_offset(dims_, group_.begin + row, group_.head);
    const auto store = [&](const std::vector<C>& state, const Tensor& last) {
      if (!last.defined()) return;
      std::copy_n(state.data() + row * dims_.size, dims_.size, last.data<C>() + to);
    };
    store(h_, args_.h_last);
    store(c_, args_.c_last);
    store(n_, args_.n_last);
    store(m_, args_.m_last);
  }

  void step_row(std::int64_t t, std::int64_t row) {
    const std::int64_t size = dims_.size;
    const std::int64_t token = token_offset(dims_, group_.begin + row, t, group_.head);
    const std::int64_t step_at = step_offset(dims_, group_.begin + row, t, group_.head);
    const T* x[kNumGates];
    const C* b[kNumGates];
    const C* r = recurrent_.data() + row * product_.out_stride();
    for (int g = 0; g < kNumGates; ++g) {
      x[g] = args_.in.x[g].data<T>() + token;
      b[g] = args_.in.b.data<C>() + (g * dims_.heads + group_.head) * size;
    }
    const bool saving = args_.gates.defined();
    C* gates = saving ? args_.gates.data<C>() + kNumGates * step_at : unsaved_.data();
    C* states = saving ? args_.states.data<C>() + 2 * step_at : unsaved_.data();
    C* slope = saving ? args_.forget_slope.data<C>() + step_at : unsaved_.data();
    T* h_out = args_.h.data<T>() + token;
    C* h = h_.data() + row * size;
    C* c = c_.data() + row * size;
    C* n = n_.data() + row * size;
    C* m = m_.data() + row * size;
#pragma omp simd
    for (std::int64_t d = 0; d < size; ++d) {
      ElementState<C> state{c[d], n[d], m[d]};
      const ElementGates<C> gate = step<HostMath>(
          static_cast<C>(x[0][d]) + r[d] + b[0][d], static_cast<C>(x[1][d]) + r[size + d] + b[1][d],
          static_cast<C>(x[2][d]) + r[2 * size + d] + b[2][d],
          static_cast<C>(x[3][d]) + r[3 * size + d] + b[3][d], state);
      h[d] = gate.o * state.c / state.n;
      h_out[d] = cpu::round_to<T>(h[d]);
      c[d] = state.c;
      n[d] = state.n;
      m[d] = state.m;
      gates[d] = gate.i;
      gates[size + d] = gate.f;
      gates[2 * size + d] = gate.z;
      gates[3 * size + d] = gate.o;
      states[d] = state.c;
      states[size + d] = state.n;
      slope[d] = gate.forget_slope;
    }
  }

  const CellForwardArgs& args_;
  const Dims dims_;
  const Group group_;
  const PanelProduct<C> product_;
  std::vector<C> h_, c_, n_, m_;  // (rows, D)
  std::vector<C> recurrent_;      // (rows, 4·D, padded): R·h
  std::vector<C> unsaved_;        // where gates and states go if no backward will want them
};

void forward(const CellForwardArgs& args) {
  cpu::dispatch_floating("slstm_fwd", args.h.dtype(), [&]<class T>() {
    const Dims dims = dims_of(args.h);
    const Groups groups(dims, in_parallel() ? 1 : num_threads());
    for_each_group(dims, groups, [&](std::int64_t, const Group& group) {
      ForwardWalk<T>(args, dims, group).run();
    });
  });
}

}  // namespace

void register_cpu_forward() { cell_fwd.set(DeviceType::kCpu, forward); }

}  // namespace carousel::slstm
