// The cell against float64 results of an independent implementation (tests/golden/README.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/tensor/safetensors.h"
#include "tests/layers/mlstm/cell_case.h"
#include "tests/support/devices.h"
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

// What float32 allows: cases with extreme gates lose more.
double float32_tolerance(const GoldenCase& g, double usual) {
  double largest = 0.0;
  for (const double i : g.in.i) largest = std::max(largest, std::abs(i));
  return largest > 30.0 ? std::max(usual, 1e-4) : usual;
}

TEST(GoldenMlstmCell, AllFormsReproduceEveryCaseInFloat32) {
  const GoldenFile file;
  int cases = 0;
  for (; file.contains(fmt::format("case{}", cases)); ++cases) {
    const std::string name = fmt::format("case{}", cases);
    const GoldenCase g = file.load(name);
    for (const mlstm::Form form : testing::kForms) {
      testing::expect_close(run_cell<float>(g.in, g.up, form, 64), g.want,
                            float32_tolerance(g, 1e-5), name + " " + testing::name_of_form(form));
    }
  }
  EXPECT_EQ(cases, 6);
}

TEST(CudaReference, TheMlstmCellReproducesEveryCase) {
  CAROUSEL_REQUIRE_CUDA();
  const GoldenFile file;
  for (int c = 0; file.contains(fmt::format("case{}", c)); ++c) {
    const GoldenCase g = file.load(fmt::format("case{}", c));
    for (const mlstm::Form form : testing::kForms) {
      const std::string name = fmt::format("case{} {}", c, testing::name_of_form(form));
      testing::expect_close(run_cell<float>(g.in, g.up, form, 64, testing::kGpu), g.want,
                            float32_tolerance(g, 5e-5), name);
      const Named cpu = run_cell<bfloat16>(g.in, g.up, form, 64);
      const Named gpu = run_cell<bfloat16>(g.in, g.up, form, 64, testing::kGpu);
      for (std::size_t i = 0; i < gpu.size(); ++i) {
        const double cpu_error = relative_error(cpu[i].second, g.want[i].second);
        EXPECT_LE(relative_error(gpu[i].second, g.want[i].second), 2.0 * cpu_error + 0x1.0p-8)
            << name << ' ' << gpu[i].first << ", the CPU's error is " << cpu_error;
      }
    }
  }
}

}  // namespace
}  // namespace carousel
