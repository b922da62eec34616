// The lines of the kernels' table and what their accuracy is printed as.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "tests/bench/kernels/rig.h"

namespace carousel::bench {

class Table {
 public:
  explicit Table(const Rates& rates) : rates_(rates) {
    std::printf("| work | ours ms | peer ms | to reach ms | floor ms | ours / floor | reached |\n");
    std::printf("|---|---|---|---|---|---|---|\n");
  }
  /// `peer` as text, `to_reach` in milliseconds, 0 without a goal; bytes and FLOPs make the floor.
  void line(const std::string& work, double ms, const std::string& peer, double to_reach,
            double bytes, double flops) const {
    const double floor = rates_.floor_ms(bytes, flops);
    const bool goal = to_reach > 0.0;
    std::printf("| %s | %.4g | %s | %s | %.3g | %.1f | %s |\n", work.c_str(), ms, peer.c_str(),
                goal ? fmt::format("{:.3g}", to_reach).c_str() : "–", floor, ms / floor,
                !goal            ? "–"
                : ms <= to_reach ? "yes"
                                 : "no");
    std::fflush(stdout);
  }

 private:
  const Rates& rates_;
};

/// Prints the lines of issue-sized work of each kind.
void mlstm_lines(const Clock& clock, const Rates& rates, const Table& table);
void slstm_lines(const Clock& clock, const Table& table);
/// Times the kernels that make up the mLSTM's Hopper path.
void mlstm_parts(const Clock& clock);
/// Relative L2 errors against float64 on the CPU, and whether two runs give the same bits, of the
/// cases whose name contains `filter`.
void mlstm_accuracy(std::string_view filter);
void slstm_accuracy(std::string_view filter);

/// What inputs a case of the accuracy tables has; part of the case's name.
enum class Inputs { kRandom, kExtremeGates, kResets };
inline constexpr Inputs kAllInputs[] = {Inputs::kRandom, Inputs::kExtremeGates, Inputs::kResets};
inline const char* name_of(Inputs inputs) {
  constexpr const char* kNames[] = {"random", "extreme gates", "resets"};
  return kNames[static_cast<int>(inputs)];
}

template <class Case>
std::string accuracy_name(const Case& c) {
  return c.name() + ", " + name_of(c.inputs);
}

/// Document starts every 701 tokens, a prime.
inline Tensor resets_for(std::int64_t batch, std::int64_t time) {
  std::vector<std::uint8_t> reset(static_cast<std::size_t>(batch * time));
  for (std::size_t t = 0; t < reset.size(); t += 701) reset[t] = 1;
  return Tensor::from<std::uint8_t>(reset, {batch, time}, kGpu);
}

/// Whether `run` leaves the same bits in all of `outputs` twice; they hold the last run's.
inline bool repeats(const std::function<void()>& run, const std::vector<Tensor>& outputs) {
  const auto bits = [&] {
    std::vector<std::vector<std::byte>> all;
    for (const Tensor& t : outputs) {
      all.emplace_back(t.bytes());
      t.copy_to_host(all.back().data());
    }
    return all;
  };
  run();
  const auto first = bits();
  run();
  return first == bits();
}

}  // namespace carousel::bench
