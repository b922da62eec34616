// The cell against float64 results of an independent implementation (tests/golden/README.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/tensor/safetensors.h"
#include "tests/layers/mlstm/cell_case.h"
#include "tests/support/golden.h"

namespace carousel {
namespace {

using testing::MlstmInputs;
using testing::Named;
using testing::relative_error;
using testing::run_cell;
using testing::Upstream;

struct GoldenCase {
  MlstmInputs<double> in;
  Upstream up;
  Named want;
};

class GoldenFile {
 public:
  GoldenFile() : file_(testing::golden_path("mlstm_cell.safetensors")) {}

  bool contains(const std::string& name) const { return file_.contains(name + ".q"); }

  /// The file's sequences are (B, NH, S, …), its k carries 1/√DQK, so that its C and n are 1/√DQK
  /// times ours.
  GoldenCase load(const std::string& name) const {
    const auto get = [&](const char* field) {
      return file_.load_as(name + "." + field, DType::kF64).to_vector<double>();
    };
    const auto sequence = [&](const char* field) { return time_major(name, field); };
    const Shape& c0 = file_.info(name + ".C0").shape;
    GoldenCase g;
    g.in.batch = static_cast<std::size_t>(c0[0]);
    g.in.heads = static_cast<std::size_t>(c0[1]);
    g.in.dqk = static_cast<std::size_t>(c0[2]);
    g.in.dv = static_cast<std::size_t>(c0[3]);
    g.in.time = static_cast<std::size_t>(file_.info(name + ".i").shape[2]);
    g.in.q = sequence("q");
    g.in.k = sequence("k");
    g.in.v = sequence("v");
    g.in.i = sequence("i");
    g.in.f = sequence("f");
    const double root = std::sqrt(static_cast<double>(c0[2]));
    g.in.c0 = scaled(get("C0"), root);
    g.in.n0 = scaled(get("n0"), root);
    g.in.m0 = get("m0");
    g.up.dh = sequence("dh");
    g.want = {{"h", sequence("h")},
              {"c_last", scaled(get("C"), root)},
              {"n_last", scaled(get("n"), root)},
              {"m_last", get("m")},
              {"dq", sequence("dq")},
              {"dk", sequence("dk")},
              {"dv", sequence("dv")},
              {"di", sequence("di")},
              {"df", sequence("df")},
              {"dc0", scaled(get("dC0"), 1.0 / root)},
              {"dn0", scaled(get("dn0"), 1.0 / root)}};
    return g;
  }

 private:
  static std::vector<double> scaled(std::vector<double> x, double factor) {
    for (double& e : x) e *= factor;
    return x;
  }

  // (B, NH, S, …) to (B, S, NH, …).
  std::vector<double> time_major(const std::string& name, const char* field) const {
    const Tensor t = file_.load_as(name + "." + field, DType::kF64);
    const auto from = t.to_vector<double>();
    const std::int64_t heads = t.dim(1);
    const std::int64_t time = t.dim(2);
    const std::int64_t width = t.rank() == 4 ? t.dim(3) : 1;
    std::vector<double> to(from.size());
    for (std::int64_t row = 0; row < t.dim(0) * heads * time; ++row) {
      const std::int64_t s = row % time;
      const std::int64_t head = row / time % heads;
      const std::int64_t b = row / time / heads;
      std::copy_n(from.begin() + row * width, width,
                  to.begin() + ((b * time + s) * heads + head) * width);
    }
    return to;
  }

  SafetensorsFile file_;
};

TEST(GoldenMlstmCell, AllFormsReproduceEveryCaseInFloat32) {
  const GoldenFile file;
  int cases = 0;
  for (; file.contains(fmt::format("case{}", cases)); ++cases) {
    const std::string name = fmt::format("case{}", cases);
    const GoldenCase g = file.load(name);
    double largest = 0.0;
    for (const double i : g.in.i) largest = std::max(largest, std::abs(i));
    const double tolerance = largest > 30.0 ? 1e-4 : 1e-5;
    for (const mlstm::Form form : testing::kForms) {
      testing::expect_close(run_cell<float>(g.in, g.up, form, 64), g.want, tolerance,
                            name + " " + testing::name_of_form(form));
    }
  }
  EXPECT_EQ(cases, 6);
}

}  // namespace
}  // namespace carousel
