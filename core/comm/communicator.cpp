#include "core/comm/communicator.h"

#include <algorithm>

namespace carousel::comm {

namespace {

// A host that is frozen for a while is no failure before the collectives' time-out.
Milliseconds patience(const GroupOptions& options) {
  return std::max(options.timeout, Milliseconds{10000});
}

}  // namespace

Communicator::Communicator(const GroupOptions& options, std::unique_ptr<Store> store)
    : options_(options),
      store_(std::move(store)),
      mail_(store_->another()),
      monitor_(options.rank, options.world_size, *store_, patience(options)) {
  store_->set_patience(patience(options));
  mail_->set_patience(patience(options));
  CAROUSEL_CHECK(options.world_size >= 1 && options.rank >= 0 && options.rank < options.world_size,
                 "rank {} of {}", options.rank, options.world_size);
}

Communicator::~Communicator() = default;

void Communicator::start_monitor() {
  monitor_.start([this] { interrupt(); });
}

void Communicator::stop_monitor() noexcept { monitor_.stop(); }

void Communicator::check_tensor(const Tensor& t, const char* label, bool summed,
                                bool pieces) const {
  CAROUSEL_CHECK(t.defined() && t.numel() > 0 && t.device() == device(), "[{}] {}, not on {}",
                 label, describe(t), to_string(device()));
  CAROUSEL_CHECK(!summed || t.dtype() == DType::kF32 || t.dtype() == DType::kF64,
                 "[{}] a sum over ranks of {}", label, describe(t));
  CAROUSEL_CHECK(!pieces || t.numel() % world_size() == 0, "[{}] {} has no {} equal pieces", label,
                 describe(t), world_size());
}

namespace {

void check_order(Sum order, int world_size, const char* label) {
  CAROUSEL_CHECK(order == Sum::kFast || (world_size & (world_size - 1)) == 0,
                 "[{}] a tree over {} ranks", label, world_size);
}

}  // namespace

Work Communicator::all_reduce(const Tensor& t, const char* label, Sum order) {
  check_tensor(t, label, true, order == Sum::kTree);
  check_order(order, world_size(), label);
  t.bump_version();
  return start_all_reduce(t, order, monitor_.enter(fmt::format("all_reduce '{}'", label)));
}

Work Communicator::reduce_scatter(const Tensor& t, const char* label, Sum order) {
  check_tensor(t, label, true, true);
  check_order(order, world_size(), label);
  t.bump_version();
  return start_reduce_scatter(t, order, monitor_.enter(fmt::format("reduce_scatter '{}'", label)));
}

Work Communicator::all_gather(const Tensor& t, const char* label) {
  check_tensor(t, label, false, true);
  t.bump_version();
  return start_all_gather(t, monitor_.enter(fmt::format("all_gather '{}'", label)));
}

Work Communicator::broadcast(const Tensor& t, int root, const char* label) {
  check_tensor(t, label, false, false);
  CAROUSEL_CHECK(root >= 0 && root < world_size(), "[{}] root {}", label, root);
  t.bump_version();
  return start_broadcast(t, root, monitor_.enter(fmt::format("broadcast '{}'", label)));
}

Tensor Communicator::gather_values(std::span<const double> values, const char* label) {
  const auto n = static_cast<std::int64_t>(values.size());
  const RoleScope role(Role::kWorkspace);
  const Tensor all = Tensor::empty({world_size(), n}, DType::kF64, device());
  all.slice(rank(), rank() + 1).copy_from_host(values.data());
  all_gather(all, label).wait();
  return all;
}

void Communicator::sum_on_host(std::span<double> values, const char* label) {
  const std::vector<double> host = gather_values(values, label).to_vector<double>();
  check();
  std::ranges::fill(values, 0.0);
  for (std::size_t i = 0; i < host.size(); ++i) values[i % values.size()] += host[i];
}

std::vector<std::string> Communicator::gather(const std::string& mine, const char* label) {
  const Monitor::Ticket ticket = monitor_.enter(fmt::format("gather '{}'", label));
  const auto deadline = Clock::now() + options_.timeout;
  const std::string prefix = fmt::format("gather/{}/", gathers_++);
  store_->set(prefix + std::to_string(rank()), mine);
  std::vector<std::string> all;
  for (int r = 0; r < world_size(); ++r) {
    // In short waits, so that a failure elsewhere ends this one early.
    std::optional<std::string> value;
    while (!(value = store_->get(prefix + std::to_string(r), Milliseconds{200}))) {
      if (monitor_.failure() || Clock::now() >= deadline) {
        throw PeerError("{}", monitor_.explain(ticket, fmt::format("no word from rank {}", r)));
      }
    }
    all.push_back(std::move(*value));
  }
  return all;
}

std::string Communicator::await(const std::string& key, const char* what) {
  const auto deadline = Clock::now() + options_.timeout;
  for (;;) {
    // In short waits, so that a failure elsewhere ends this one early.
    if (auto value = mail_->get(key, Milliseconds{200})) return std::move(*value);
    check();
    if (Clock::now() >= deadline) {
      throw PeerError("{} did not come within {} ms", what, options_.timeout.count());
    }
  }
}

void Communicator::check() {
  if (const auto failure = monitor_.failure()) {
    const Monitor::Ticket at = monitor_.newest();
    throw PeerError("{}; this rank has come to {} (collective {})", *failure, at.name, at.number);
  }
}

void Communicator::abort(const std::string& reason) noexcept {
  monitor_.report(reason);
  monitor_.blame(reason);
  interrupt();
}

}  // namespace carousel::comm
