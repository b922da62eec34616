// Precision: x, dh and dx in T; everything between in compute_t<T>. h is recomputed from the saved
// gates and states, so that in bf16 its rounding does not enter dr.
#include <vector>

#include "layers/slstm/cpu/kernels.h"
#include "layers/slstm/cpu/panel_product.h"
#include "layers/slstm/cpu/walk.h"
#include "layers/slstm/pointwise.h"

namespace carousel::slstm {
namespace {

// Scratch of the whole backward: one row a step and batch row, one matrix a head.
struct Scratch {
  Tensor dgates;  // (NH, S·B, 4·D): gradients of the pre-activations
  Tensor
      h_previous;  // (NH, S·B, D): the h that each step's recurrent product read; if dr is wanted
  Tensor db;       // (groups, 4·D): each group's part of db
};

// One group's walk back through time.
template <class T>
class BackwardWalk {
  using C = cpu::compute_t<T>;

 public:
  BackwardWalk(const CellBackwardArgs& args, const Dims& dims, const Group& group,
               const Scratch& scratch, C* db)
      : args_(args),
        dims_(dims),
        group_(group),
        scratch_(scratch),
        db_(db),
        product_(args.in.r.data<C>() + group.head * kNumGates * dims.size * dims.size,
                 kNumGates * dims.size, dims.size, false, dims.time),
        dh_(static_cast<std::size_t>(group.rows * product_.out_stride())),
        dc_(buffer()),
        dn_(buffer()),
        zeros_(static_cast<std::size_t>(dims.size)),
        unwanted_(static_cast<std::size_t>(dims.size)) {}

  void run() {
    std::fill_n(db_, kNumGates * dims_.size, C{0});
    if (args_.dh_last.defined()) {
      for (std::int64_t row = 0; row < group_.rows; ++row) start(row);
    }
    for (std::int64_t t = dims_.time - 1; t >= 0; --t) {
      for (std::int64_t row = 0; row < group_.rows; ++row) step_row(t, row);
      if (t == 0 && !args_.dh0.defined()) break;
      product_(group_.rows, dgates(t, 0), kNumGates * dims_.size, dh_.data());
      for (std::int64_t row = 0; row < group_.rows; ++row) {
        if (starts_document(t, row)) std::fill_n(dh(row), dims_.size, C{0});
      }
    }
    for (std::int64_t row = 0; row < group_.rows; ++row) finish(row);
  }

 private:
  std::vector<C> buffer() const {
    return std::vector<C>(static_cast<std::size_t>(group_.rows * dims_.size));
  }
  C* dh(std::int64_t row) { return dh_.data() + row * product_.out_stride(); }
  C* dc(std::int64_t row) { return dc_.data() + row * dims_.size; }
  C* dn(std::int64_t row) { return dn_.data() + row * dims_.size; }

  std::int64_t scratch_row(std::int64_t t, std::int64_t row) const {
    return (group_.head * dims_.time + t) * dims_.batch + group_.begin + row;
  }
  C* dgates(std::int64_t t, std::int64_t row) const {
    return scratch_.dgates.data<C>() + scratch_row(t, row) * kNumGates * dims_.size;
  }
  // Where the h that the product of step t read goes.
  C* h_previous(std::int64_t t, std::int64_t row) {
    if (!scratch_.h_previous.defined()) return unwanted_.data();
    return scratch_.h_previous.data<C>() + scratch_row(t, row) * dims_.size;
  }

  bool starts_document(std::int64_t t, std::int64_t row) const {
    return args_.in.reset.defined() &&
           args_.in.reset.data<std::uint8_t>()[(group_.begin + row) * dims_.time + t] != 0;
  }

  void start(std::int64_t row) {
    const std::int64_t from = state_offset(dims_, group_.begin + row, group_.head);
    std::copy_n(args_.dh_last.data<C>() + from, dims_.size, dh(row));
    std::copy_n(args_.dc_last.data<C>() + from, dims_.size, dc(row));
    std::copy_n(args_.dn_last.data<C>() + from, dims_.size, dn(row));
  }

  void finish(std::int64_t row) {
    const std::int64_t to = state_offset(dims_, group_.begin + row, group_.head);
    if (args_.dh0.defined()) std::copy_n(dh(row), dims_.size, args_.dh0.data<C>() + to);
    if (args_.dc0.defined()) std::copy_n(dc(row), dims_.size, args_.dc0.data<C>() + to);
    if (args_.dn0.defined()) std::copy_n(dn(row), dims_.size, args_.dn0.data<C>() + to);
  }

  // The state before step t of a row.
  struct Before {
    const C *c, *n;
  };
  Before state_before(std::int64_t t, std::int64_t row) const {
    if (starts_document(t, row)) return {zeros_.data(), zeros_.data()};
    if (t > 0) {
      const C* states =
          args_.states.data<C>() + 2 * step_offset(dims_, group_.begin + row, t - 1, group_.head);
      return {states, states + dims_.size};
    }
    if (!args_.in.c0.defined()) return {zeros_.data(), zeros_.data()};
    const std::int64_t at = state_offset(dims_, group_.begin + row, group_.head);
    return {args_.in.c0.data<C>() + at, args_.in.n0.data<C>() + at};
  }

  void step_row(std::int64_t t, std::int64_t row) {
    write_h_of_first_token(t, row);
    differentiate(t, row);
    const C* dg = dgates(t, row);
    const std::int64_t token = token_offset(dims_, group_.begin + row, t, group_.head);
    for (int g = 0; g < kNumGates; ++g) {
      if (!args_.dx[g].defined()) continue;
      T* dx = args_.dx[g].data<T>() + token;
#pragma omp simd
      for (std::int64_t d = 0; d < dims_.size; ++d) {
        dx[d] = cpu::round_to<T>(dg[g * dims_.size + d]);
      }
    }
#pragma omp simd
    for (std::int64_t j = 0; j < kNumGates * dims_.size; ++j) db_[j] += dg[j];
  }

  // The h before a document or the sequence; every other one is written by the step that made it.
  void write_h_of_first_token(std::int64_t t, std::int64_t row) {
    if (starts_document(t, row) || (t == 0 && !args_.in.h0.defined())) {
      std::fill_n(h_previous(t, row), dims_.size, C{0});
    } else if (t == 0) {
      const std::int64_t at = state_offset(dims_, group_.begin + row, group_.head);
      std::copy_n(args_.in.h0.data<C>() + at, dims_.size, h_previous(t, row));
    }
  }

  // Writes the gradients of step t's pre-activations and the h that step t + 1 read.
  void differentiate(std::int64_t t, std::int64_t row) {
    const std::int64_t size = dims_.size;
    const std::int64_t step_at = step_offset(dims_, group_.begin + row, t, group_.head);
    const bool read_on = t + 1 < dims_.time && !starts_document(t + 1, row);
    const C* gates = args_.gates.data<C>() + kNumGates * step_at;
    const C* after = args_.states.data<C>() + 2 * step_at;
    const C* slope = args_.forget_slope.data<C>() + step_at;
    const Before before = state_before(t, row);
    const T* dh_out = args_.dh.data<T>() + token_offset(dims_, group_.begin + row, t, group_.head);
    const C* dh_recurrent = dh(row);
    C* dc_row = dc(row);
    C* dn_row = dn(row);
    C* dg = dgates(t, row);
    C* h = read_on ? h_previous(t + 1, row) : unwanted_.data();
#pragma omp simd
    for (std::int64_t d = 0; d < size; ++d) {
      const ElementGates<C> gate{gates[d], gates[size + d], gates[2 * size + d],
                                 gates[3 * size + d], slope[d]};
      const ElementState<C> state_after{after[d], after[size + d], C{0}};
      const ElementState<C> state_before{before.c[d], before.n[d], C{0}};
      h[d] = gate.o * state_after.c / state_after.n;
      const ElementGradients<C> gradient =
          step_backward(gate, state_after, state_before,
                        static_cast<C>(dh_out[d]) + dh_recurrent[d], dc_row[d], dn_row[d]);
      dg[d] = gradient.i;
      dg[size + d] = gradient.f;
      dg[2 * size + d] = gradient.z;
      dg[3 * size + d] = gradient.o;
    }
  }

  const CellBackwardArgs& args_;
  const Dims dims_;
  const Group group_;
  const Scratch& scratch_;
  C* db_;  // (4·D)
  const PanelProduct<C> product_;
  std::vector<C> dh_;        // (rows, D, padded): what step t + 1 sent back through R
  std::vector<C> dc_, dn_;   // (rows, D)
  std::vector<C> zeros_;     // (D)
  std::vector<C> unwanted_;  // (D)
};

// dr[n] += dgatesᵀ·h_previous over all steps and batch rows. Many heads: side by side; few: one
// after the other with all threads.
template <class C>
void accumulate_dr(const Scratch& scratch, const Dims& dims, const Tensor& dr) {
  const std::int64_t rows = dims.time * dims.batch;
  const std::int64_t gates = kNumGates * dims.size;
  const auto range = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t head = begin; head < end; ++head) {
      cpu::gemm(true, false, gates, dims.size, rows, C{1},
                scratch.dgates.data<C>() + head * rows * gates, gates,
                scratch.h_previous.data<C>() + head * rows * dims.size, dims.size, C{1},
                dr.data<C>() + head * gates * dims.size, dims.size);
    }
  };
  if (dims.heads < num_threads()) {
    range(0, dims.heads);
  } else {
    const std::int64_t work = rows * gates * dims.size;
    parallel_for(dims.heads, cpu::kElementwiseGrain / work + 1, range);
  }
}

// Adds the groups' parts in their order.
template <class C>
void accumulate_db(const Scratch& scratch, const Dims& dims, const Groups& groups,
                   const Tensor& db) {
  for (std::int64_t index = 0; index < groups.count(); ++index) {
    const C* part = scratch.db.data<C>() + index * kNumGates * dims.size;
    for (int g = 0; g < kNumGates; ++g) {
      C* to = db.data<C>() + (g * dims.heads + groups[index].head) * dims.size;
      for (std::int64_t d = 0; d < dims.size; ++d) to[d] += part[g * dims.size + d];
    }
  }
}

void backward(const CellBackwardArgs& args) {
  cpu::dispatch_floating("slstm_bwd", args.dh.dtype(), [&]<class T>() {
    using C = cpu::compute_t<T>;
    const RoleScope role(Role::kWorkspace);
    const Dims dims = dims_of(args.dh);
    const Groups groups(dims, in_parallel() ? 1 : num_threads());
    const std::int64_t rows = dims.time * dims.batch;
    Scratch scratch;
    scratch.dgates = Tensor::empty({dims.heads, rows, kNumGates * dims.size}, dtype_of<C>);
    if (args.dr.defined()) {
      scratch.h_previous = Tensor::empty({dims.heads, rows, dims.size}, dtype_of<C>);
    }
    scratch.db = Tensor::empty({groups.count(), kNumGates * dims.size}, dtype_of<C>);
    for_each_group(dims, groups, [&](std::int64_t index, const Group& group) {
      C* db = scratch.db.data<C>() + index * kNumGates * dims.size;
      BackwardWalk<T>(args, dims, group, scratch, db).run();
    });
    if (args.dr.defined()) accumulate_dr<C>(scratch, dims, args.dr);
    if (args.db.defined()) accumulate_db<C>(scratch, dims, groups, args.db);
  });
}

}  // namespace

void register_cpu_backward() { cell_bwd.set(DeviceType::kCpu, backward); }

}  // namespace carousel::slstm
