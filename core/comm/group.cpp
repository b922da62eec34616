#include "core/comm/group.h"

#include <unistd.h>

#include <algorithm>
#include <climits>
#include <sstream>
#include <utility>

#include "core/base/log.h"
#include "core/comm/backends.h"

namespace carousel::comm {
namespace {

// How long rank 0 keeps the store for the others, when they read why the group ended, and when they
// are about to be done.
constexpr Milliseconds kShortWait{1000};
constexpr Milliseconds kLongWait{5000};
// When a run is started again, the server of the attempt before may still be about to leave.
constexpr Milliseconds kServerLingers{10000};

std::string this_process() {
  char host[HOST_NAME_MAX + 1] = {};
  ::gethostname(host, HOST_NAME_MAX);
  return fmt::format("process {} on {}", ::getpid(), host);
}

std::string taken_key(int rank) { return fmt::format("taken/{}", rank); }
std::string join_key(int rank) { return fmt::format("join/{}", rank); }

// "1", "1 and 2", "1, 2 and 3".
std::string in_words(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " and " : ", ";
    text += words[i];
  }
  return text;
}

// The ranks that have not arrived at the time-out, or when there is a verdict on the group already.
std::vector<std::string> absent(Store& store, int world_size, Milliseconds timeout) {
  constexpr Milliseconds kLook{100};
  const auto deadline = Clock::now() + timeout;
  std::vector<std::string> missing;
  for (int r = 0; r < world_size; ++r) {
    bool arrived = false;
    bool over = false;
    while (!arrived && !over) {
      over = Clock::now() >= deadline || store.get("verdict", Milliseconds{0});
      arrived = store.get(join_key(r), over ? Milliseconds{0} : kLook).has_value();
    }
    if (!arrived) missing.push_back(std::to_string(r));
  }
  return missing;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// The first lines of two texts that are not in the other one; "nothing" where there is none.
std::pair<std::string, std::string> first_difference(const std::string& a, const std::string& b) {
  const auto a_lines = lines_of(a);
  const auto b_lines = lines_of(b);
  const auto first_beyond = [](const auto& lines, const auto& others) -> std::string {
    for (const std::string& line : lines) {
      if (std::ranges::find(others, line) == others.end()) return line;
    }
    return "nothing";
  };
  return {first_beyond(a_lines, b_lines), first_beyond(b_lines, a_lines)};
}

// What rank 0 finds wrong with the group; empty if nothing.
std::string problem_of_group(Store& store, const std::string& mine, int world_size) {
  std::vector<std::string> different;
  std::string example;
  for (int r = 1; r < world_size; ++r) {
    const std::string theirs = store.get(join_key(r), Milliseconds{0}).value_or("");
    if (theirs == mine) continue;
    different.push_back(std::to_string(r));
    if (!example.empty()) continue;
    const auto [here, there] = first_difference(mine, theirs);
    example = fmt::format("rank {} has {}, rank 0 has {}", r, there, here);
  }
  if (different.empty()) return "";
  const bool several = different.size() > 1;
  return fmt::format(
      "rank{} {} differ{} from rank 0: {}; start all ranks with the same program, configuration "
      "and overrides",
      several ? "s" : "", in_words(different), several ? "" : "s", example);
}

// Throws if another process has this rank already.
void claim_rank(Store& store, const Placement& place) {
  if (store.add(taken_key(place.rank), 1) == 1) return;
  const std::string problem = fmt::format(
      "two processes claim rank {} of {}, the second is {}; give each process a rank of its own, "
      "and each run a MASTER_PORT",
      place.rank, place.world_size, this_process());
  store.set_once("verdict", problem);
  throw UsageError("{}", problem);  // of this process the group may not know
}

// Throws if another process of the group is on this one's GPU. NCCL would refuse them too, but not
// say which they are.
void claim_gpu(Store& store, const Placement& place) {
  if (place.gpu.empty()) return;
  const std::string key = "gpu/" + place.gpu;
  store.set_once(key, std::to_string(place.rank));
  const std::string holder = store.get(key, Milliseconds{0}).value_or("");
  if (holder == std::to_string(place.rank)) return;
  const std::string problem = fmt::format(
      "ranks {} and {} are both on {}; start at most one process a GPU, and let each see its own",
      holder, place.rank, place.gpu);
  store.set_once("verdict", problem);
  throw KnownToAll("{}", problem);
}

// Rank 0's server. If its port is taken by another rank 0 of this group, both are told so.
std::unique_ptr<StoreServer> serve(const Placement& place) {
  try {
    return std::make_unique<StoreServer>(place.master_port);
  } catch (const UsageError&) {
    try {
      TcpStore store("localhost", place.master_port, kShortWait, place.prefix);
      if (store.get(taken_key(0), kShortWait)) claim_rank(store, place);
    } catch (const PeerError&) {
      // Another program's port.
    }
    throw;
  }
}

void meet(Store& store, const Placement& place, const std::string& identity, Milliseconds timeout) {
  claim_rank(store, place);
  claim_gpu(store, place);
  const std::string mine = fmt::format("world size={}\n{}", place.world_size, identity);
  store.set(join_key(place.rank), mine);
  if (place.rank != 0) {
    const auto verdict = store.get("verdict", timeout + Milliseconds{2000});
    if (!verdict) throw PeerError("rank {}: no word from rank 0", place.rank);
    if (verdict->starts_with("missing: ")) throw PeerError("{}", verdict->substr(9));
    if (!verdict->empty()) throw KnownToAll("{}", *verdict);
    return;
  }
  const auto named = [&](const std::vector<std::string>& ranks) {
    return fmt::format("rank{} {} of {}", ranks.size() > 1 ? "s" : "", in_words(ranks),
                       place.world_size);
  };
  const auto soon = std::min(timeout, Milliseconds{10'000});
  std::vector<std::string> missing = absent(store, place.world_size, soon);
  if (!missing.empty() && soon < timeout && !store.get("verdict", Milliseconds{0})) {
    log::warn("waiting for {} at {}:{}, {} s at most", named(missing), place.master_addr,
              place.master_port, (timeout - soon).count() / 1000);
    missing = absent(store, place.world_size, timeout - soon);
  }
  if (!missing.empty() && !store.get("verdict", Milliseconds{0})) {
    const std::string problem =
        fmt::format("{} did not arrive at {}:{} within {} s", named(missing), place.master_addr,
                    place.master_port, timeout.count() / 1000);
    store.set_once("verdict", "missing: " + problem);
    throw PeerError("{}", problem);
  }
  store.set_once("verdict", problem_of_group(store, mine, place.world_size));
  if (const auto verdict = store.get("verdict", Milliseconds{0}); !verdict->empty()) {
    throw KnownToAll("{}", *verdict);
  }
}

}  // namespace

Group::Group(const Placement& placement, Device device, const std::string& identity,
             Milliseconds join_timeout, Milliseconds timeout)
    : placement_(placement) {
  if (placement.rank == 0 && placement.serve) {
    server_ = serve(placement);
    placement_.master_port = server_->port();
  }
  const auto retry_until = Clock::now() + std::min(join_timeout, kServerLingers);
  while (!try_to_meet(identity, join_timeout, Clock::now() < retry_until)) {
    std::this_thread::sleep_for(Milliseconds{50});
  }
  const GroupOptions options{.rank = placement_.rank,
                             .world_size = placement_.world_size,
                             .timeout = timeout,
                             .device = device};
  try {
    communicator_ = device.type == DeviceType::kCuda ? make_nccl(options, store_->another())
                                                     : make_gloo(options, store_->another());
  } catch (const Error&) {
    leave(kShortWait);  // the others hear first why this rank stops
    throw;
  }
}

// False, if `may_retry`, where the store's server went away meanwhile.
bool Group::try_to_meet(const std::string& identity, Milliseconds timeout, bool may_retry) {
  try {
    store_ = std::make_unique<TcpStore>(placement_.master_addr, placement_.master_port, timeout,
                                        placement_.prefix);
    meet(*store_, placement_, identity, timeout);
  } catch (const StoreGone&) {
    if (!may_retry || server_ != nullptr) throw;
    return false;
  } catch (const Error&) {
    if (store_ != nullptr) leave(kShortWait);  // the others read the verdict first
    throw;
  }
  return true;
}

Group::~Group() {
  const bool failed = communicator_->failed();
  communicator_.reset();
  leave(failed ? kShortWait : kLongWait);
}

void Group::leave(Milliseconds patience) noexcept {
  try {
    const auto deadline = Clock::now() + patience;
    std::int64_t left = store_->add("left", 1);
    while (server_ != nullptr && left < placement_.world_size && Clock::now() < deadline) {
      std::this_thread::sleep_for(Milliseconds{5});
      left = store_->add("left", 0);
    }
  } catch (const std::exception&) {
    // The store is gone: nobody is waiting.
  }
}

}  // namespace carousel::comm
