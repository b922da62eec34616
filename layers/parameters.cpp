#include "layers/parameters.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/parallel.h"
#include "core/kernels/elementwise.h"

namespace carousel {

Init init_constant(double value) {
  return [v = static_cast<float>(value)](const RandomKey&, std::uint64_t) { return v; };
}

Init init_normal(double std) {
  return [std](const RandomKey& key, std::uint64_t element) {
    return static_cast<float>(std * philox_normal(key, element));
  };
}

Init init_uniform(double low, double high) {
  return [low, high](const RandomKey& key, std::uint64_t element) {
    return static_cast<float>(low + (high - low) * philox_uniform(key, element));
  };
}

Init init_values(std::vector<float> values) {
  return [v = std::move(values)](const RandomKey&, std::uint64_t element) { return v.at(element); };
}

Init init_small(std::int64_t dim) {
  return init_normal(std::sqrt(2.0 / (5.0 * static_cast<double>(dim))));
}

Init init_wang(std::int64_t dim, std::int64_t blocks) {
  return init_normal(2.0 / (static_cast<double>(blocks) * std::sqrt(static_cast<double>(dim))));
}

Init init_linspace(double first, double last, std::int64_t count) {
  return [first, last, count](const RandomKey&, std::uint64_t element) {
    const double t =
        count > 1 ? static_cast<double>(element) / static_cast<double>(count - 1) : 0.0;
    return static_cast<float>(first + (last - first) * t);
  };
}

Parameter& ParameterSet::add(ParameterSpec spec) {
  CAROUSEL_CHECK(!materialised(), "parameter '{}' added after materialise()", spec.name);
  CAROUSEL_CHECK(!by_name_.contains(spec.name), "two parameters named '{}'", spec.name);
  Parameter& p = parameters_.emplace_back();
  p.spec = std::move(spec);
  by_name_.emplace(p.spec.name, &p);
  return p;
}

void ParameterSet::lay_out(int pieces) {
  CAROUSEL_CHECK(!materialised(), "lay_out() after materialise()");
  constexpr std::int64_t kCommonPieces = 64;
  const std::int64_t unit = kAlignment * std::lcm<std::int64_t>(kCommonPieces, pieces);
  const auto round_up = [](std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; };
  std::int64_t end = 0;
  for (const bool replicated : {false, true}) {
    for (Parameter& p : parameters_) {
      if (p.spec.keep_float32 != replicated) continue;
      p.offset = end;
      end += round_up(p.spec.shape.numel(), kAlignment);
    }
    end = round_up(end, unit);
    if (!replicated) replicated_begin_ = end;
  }
  arena_size_ = end;
}

void ParameterSet::materialise(Device device, DType compute, const std::vector<ArenaRange>& owned) {
  if (arena_size_ == 0) lay_out();
  const bool sharded = compute == DType::kBF16 && !owned.empty();
  allocate(device, compute, sharded ? owned : std::vector<ArenaRange>{{0, arena_size_}}, true);
}

void ParameterSet::materialise_for_inference(Device device, DType compute) {
  if (arena_size_ == 0) lay_out();
  const std::int64_t first = compute == DType::kBF16 ? replicated_begin_ : 0;
  allocate(device, compute, {{first, arena_size_}}, false);
}

void ParameterSet::allocate(Device device, DType compute, std::vector<ArenaRange> masters,
                            bool gradients) {
  CAROUSEL_CHECK(!materialised(), "materialise() twice");
  const DType wide = accumulation_dtype(compute);
  master_parts_ = std::move(masters);
  std::int64_t held = 0;
  for (const ArenaRange& part : master_parts_) held += part.size();
  {
    const RoleScope role(Role::kParameters);
    master_ = Tensor::zeros({held}, wide, device);  // the padding stays zero for ever
    if (compute == DType::kBF16) compute_ = Tensor::zeros({arena_size_}, compute, device);
  }
  if (gradients) {
    const RoleScope role(Role::kGradients);
    grad_ = Tensor::zeros({arena_size_}, wide, device);
  }
  for (Parameter& p : parameters_) {
    const Tensor master = master_of({p.offset, p.offset + p.spec.shape.numel()});
    if (master.defined()) p.master = master.reshape(p.spec.shape);
    const bool narrow = compute_.defined() && !p.spec.keep_float32;
    CAROUSEL_CHECK(narrow || p.master.defined(), "'{}' is not owned", p.spec.name);
    const Tensor value = narrow ? compute_.range(p.offset, p.spec.shape) : p.master;
    p.variable =
        gradients ? Variable::leaf(value, grad_.range(p.offset, p.spec.shape)) : Variable(value);
  }
}

void ParameterSet::initialise(std::uint64_t seed) {
  constexpr std::uint32_t kInitStep = 0xFFFFFFFFu;  // no training step has this number
  std::uint32_t index = 0;
  for (Parameter& p : parameters_) {
    const RandomKey key{seed, kInitStep, index++};
    std::vector<float> values(static_cast<std::size_t>(p.spec.shape.numel()));
    parallel_for(p.spec.shape.numel(), 4096, [&](std::int64_t begin, std::int64_t end) {
      for (auto e = static_cast<std::size_t>(begin); e < static_cast<std::size_t>(end); ++e) {
        values[e] = p.spec.init(key, e);
      }
    });
    const Tensor host = Tensor::from<float>(values, {p.spec.shape.numel()});
    const auto converted = [&](DType dtype) {
      const Tensor out = Tensor::empty(host.shape(), dtype);
      cast(kCpu, {host, out});
      return out;
    };
    const Tensor wide = master_.dtype() == DType::kF32 ? host : converted(master_.dtype());
    for_each_part(master_parts_, p, [&](std::int64_t begin, std::int64_t end, std::int64_t local) {
      master_.range(local, {end - begin}).copy_(wide.range(begin, {end - begin}));
    });
    if (compute_.defined()) {
      compute_.range(p.offset, host.shape()).copy_(converted(compute_.dtype()));
    }
  }
}

Tensor ParameterSet::master_of(ArenaRange range) const {
  std::int64_t local = 0;
  for (const ArenaRange& part : master_parts_) {
    if (part.begin <= range.begin && range.end <= part.end) {
      return master_.range(local + range.begin - part.begin, {range.size()});
    }
    local += part.size();
  }
  return {};
}

void ParameterSet::refresh_compute() {
  if (!compute_.defined()) return;
  CAROUSEL_CHECK(masters_whole(), "refresh_compute() from a part of the masters");
  cast(compute_.device(), {master_, compute_});
  compute_.bump_version();
}

void ParameterSet::zero_grad() { grad_.zero_(); }

const Parameter& ParameterSet::at(std::string_view name) const {
  const auto it = by_name_.find(name);
  CAROUSEL_CHECK(it != by_name_.end(), "no parameter named '{}'", name);
  return *it->second;
}

std::int64_t ParameterSet::count() const {
  std::int64_t n = 0;
  for (const Parameter& p : parameters_) n += p.spec.shape.numel();
  return n;
}

}  // namespace carousel
