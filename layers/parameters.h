// Named parameters in flat arenas. Modules declare their parameters to a ParameterSet when they are
// built; materialise() then lays all of them out in one float32 master arena and one float32
// gradient arena (plus a bf16 compute arena where the precision asks for it). The layout serves the
// optimizer, the gradient norm and the checkpoints.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/autograd/variable.h"
#include "core/base/philox.h"

namespace carousel {

/// Initial value of one element; a pure function, evaluated in parallel on the host.
using Init = std::function<float(const RandomKey& key, std::uint64_t element)>;

Init init_constant(double value);
Init init_normal(double std);
Init init_uniform(double low, double high);
/// Element e of a one-dimensional parameter is values[e].
Init init_values(std::vector<float> values);
/// N(0, 2/(5·dim)): "small", Nguyen and Salazar 2019 (arXiv:1910.05895).
Init init_small(std::int64_t dim);
/// N with std 2/(blocks·√dim): "wang", from GPT-J.
Init init_wang(std::int64_t dim, std::int64_t blocks);
/// count values from first to last inclusive.
Init init_linspace(double first, double last, std::int64_t count);

struct ParameterSpec {
  std::string name;  ///< the checkpoint's name, e.g. "backbone.blocks.0.ffn.proj_up.weight"
  Shape shape;
  Init init;
  bool decay = false;         ///< takes part in weight decay
  bool keep_float32 = false;  ///< stays float32 in bf16 runs: norms, gates
};

/// A declared parameter. `variable` is undefined until the set is materialised.
struct Parameter {
  ParameterSpec spec;
  std::int64_t offset = 0;  ///< first element in the arenas
  Variable variable;        ///< what ops take: compute dtype, gradient in the arena
  Tensor master;  ///< (shape) float32 view of the master arena; undefined where a part is missing
};

/// Elements [begin, end) of the arenas.
struct ArenaRange {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
  Tensor of(const Tensor& arena) const { return arena.range(begin, {size()}); }
};

/// Calls visit(begin, end, local) for each part of a parameter that lies in `parts` of the arenas:
/// elements [begin, end) of the parameter, which in a tensor of the parts behind one another are
/// those from `local` on.
template <class Visit>
void for_each_part(const std::vector<ArenaRange>& parts, const Parameter& p, Visit&& visit) {
  std::int64_t local = 0;
  for (const ArenaRange& part : parts) {
    const std::int64_t begin = std::max(part.begin, p.offset);
    const std::int64_t end = std::min(part.end, p.offset + p.spec.shape.numel());
    if (begin < end) visit(begin - p.offset, end - p.offset, local + begin - part.begin);
    local += part.size();
  }
}

class ParameterSet {
 public:
  /// Offsets are multiples of this many elements, so that every parameter is well aligned.
  static constexpr std::int64_t kAlignment = 64;

  ParameterSet() = default;
  ParameterSet(ParameterSet&&) = default;
  ParameterSet& operator=(ParameterSet&&) = default;

  /// Declares a parameter, in the order of the forward pass; the reference stays valid. Throws
  /// InternalError on a repeated name.
  Parameter& add(ParameterSpec spec);

  /// Gives every parameter its place in the arenas, padded so that they divide among `pieces`
  /// ranks: see replicated_begin().
  void lay_out(int pieces = 1);
  /// Allocates the arenas, laid out for one rank unless lay_out() was called, and gives every
  /// parameter its views. `compute` is the dtype of the parameters in ops: f32, bf16 (float32
  /// masters and gradients beside it) or f64 (all in f64). Values are unset until initialise() or a
  /// load; gradients are zero.
  /// `owned`: the only parts of the masters that a bf16 run holds, the others being other ranks';
  /// sorted, disjoint, [replicated_begin(), arena_size()) among them. In other precisions the
  /// masters are the weights in use and always whole.
  void materialise(Device device, DType compute, const std::vector<ArenaRange>& owned = {});
  /// The same for a model that is only run: no gradients and, in bf16, no masters but those of the
  /// parameters that stay float32. Values come from a load.
  void materialise_for_inference(Device device, DType compute);
  /// Fills masters and compute copies from the specs' Init; the same values whatever is owned.
  void initialise(std::uint64_t seed);
  /// Rounds the masters, which must be whole, into the bf16 compute arena; nothing to do in other
  /// precisions.
  void refresh_compute();
  /// Sets all gradients to zero.
  void zero_grad();

  const std::deque<Parameter>& all() const { return parameters_; }
  /// Throws InternalError if there is none of that name.
  const Parameter& at(std::string_view name) const;
  bool materialised() const { return master_.defined(); }

  /// Parameters that stay float32 lie behind all others, from this element on: there are few of
  /// them, so that a sharded optimizer keeps them whole. The elements before and those from here on
  /// are multiples of pieces·kAlignment each, and for a power of two of pieces up to 64 the same.
  std::int64_t replicated_begin() const { return replicated_begin_; }
  /// Arena elements, padding included, and parameter elements alone.
  std::int64_t arena_size() const { return arena_size_; }
  std::int64_t count() const;

  /// Float32 (f64): the parts master_parts() of the arena behind one another.
  const Tensor& master() const { return master_; }
  const std::vector<ArenaRange>& master_parts() const { return master_parts_; }
  bool masters_whole() const { return master_.numel() == arena_size_; }
  /// The masters of a range; undefined if this process does not hold all of it.
  Tensor master_of(ArenaRange range) const;
  const Tensor& grad() const { return grad_; }        ///< (arena_size) f32 (f64), or undefined
  const Tensor& compute() const { return compute_; }  ///< (arena_size) bf16, or undefined

 private:
  void allocate(Device device, DType compute, std::vector<ArenaRange> masters, bool gradients);

  std::deque<Parameter> parameters_;  // stable addresses
  std::unordered_map<std::string_view, const Parameter*> by_name_;
  std::int64_t replicated_begin_ = 0;
  std::int64_t arena_size_ = 0;
  std::vector<ArenaRange> master_parts_;
  Tensor master_, grad_, compute_;
};

}  // namespace carousel
