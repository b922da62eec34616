#include "optim/adamw.h"

#include <algorithm>

namespace carousel {
namespace {

// Runs of parameters of one decay group, sorted. The padding inside them is zero in every arena and
// stays zero under the update.
std::vector<AdamWSegment> decay_segments(const ParameterSet& parameters, double weight_decay) {
  std::vector<AdamWSegment> all;
  for (const Parameter& p : parameters.all()) {
    all.push_back({p.offset, p.offset + p.spec.shape.numel(), p.spec.decay ? weight_decay : 0.0});
  }
  std::ranges::sort(all, {}, &AdamWSegment::begin);
  std::vector<AdamWSegment> merged;
  for (const AdamWSegment& s : all) {
    if (!merged.empty() && merged.back().weight_decay == s.weight_decay) {
      merged.back().end = s.end;
    } else {
      merged.push_back(s);
    }
  }
  return merged;
}

}  // namespace

AdamW::AdamW(ParameterSet& parameters, const AdamWConfig& config)
    : AdamW(parameters, config, {{0, parameters.arena_size()}}) {}

AdamW::AdamW(ParameterSet& parameters, const AdamWConfig& config, std::vector<ArenaRange> owned)
    : parameters_(parameters), config_(config), owned_(std::move(owned)) {
  const std::vector<AdamWSegment> segments = decay_segments(parameters, config.weight_decay);
  std::int64_t size = 0;
  for (const ArenaRange& part : owned_) {
    CAROUSEL_CHECK(part.begin % ParameterSet::kAlignment == 0 &&
                       part.size() % ParameterSet::kAlignment == 0 && part.size() > 0,
                   "an optimizer of elements {} to {}", part.begin, part.end);
    size += part.size();
    std::vector<AdamWSegment>& inside = segments_.emplace_back();
    for (const AdamWSegment& s : segments) {
      const std::int64_t begin = std::max(s.begin, part.begin);
      const std::int64_t end = std::min(s.end, part.end);
      if (begin < end) inside.push_back({begin - part.begin, end - part.begin, s.weight_decay});
    }
  }
  const RoleScope role(Role::kOptimizer);
  m_ = Tensor::zeros({size}, parameters.master().dtype(), parameters.master().device());
  v_ = zeros_like(m_);
  norm2_ = Tensor::zeros({}, DType::kF64, m_.device());
}

void AdamW::update(std::int64_t step, double lr) {
  sum_of_squares(m_.device(), {parameters_.grad(), norm2_});
  apply(step, lr);
}

void AdamW::apply(std::int64_t step, double lr, const std::function<void(std::size_t)>& updated) {
  const Tensor& compute = parameters_.compute();
  std::int64_t local = 0;
  for (std::size_t i = 0; i < owned_.size(); ++i) {
    const ArenaRange part = owned_[i];
    const ArenaRange moments{local, local + part.size()};
    local = moments.end;
    adamw(m_.device(), {.master = parameters_.master_of(part),
                        .grad = part.of(parameters_.grad()),
                        .m = moments.of(m_),
                        .v = moments.of(v_),
                        .compute = compute.defined() ? part.of(compute) : Tensor(),
                        .segments = segments_[i],
                        .grad_norm2 = norm2_,
                        .clip = config_.clip,
                        .lr = lr,
                        .beta1 = config_.beta1,
                        .beta2 = config_.beta2,
                        .eps = config_.eps,
                        .step = step});
    if (updated) updated(i);
  }
  parameters_.master().bump_version();
  if (compute.defined()) compute.bump_version();
}

}  // namespace carousel
