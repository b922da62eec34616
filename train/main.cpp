#include <CLI/CLI.hpp>
#include <cstdio>
#include <new>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/kernels/register.h"
#include "layers/register.h"
#include "train/commands/commands.h"

namespace carousel {
namespace {

int fail(ExitCode code, const char* message) {
  std::fprintf(stderr, "error: %s\n", message);
  return static_cast<int>(code);
}

int run(int argc, char** argv) {
  CLI::App app("Carousel trains xLSTM language models.", "carousel");
  app.require_subcommand(1);
  app.set_version_flag("--version", CAROUSEL_VERSION);
  app.footer(
      "Exit codes: 0 done, 2 usage or configuration, 3 data, 4 checkpoint, 5 out of memory,\n"
      "6 non-finite loss, 7 peer failure, 75 stopped on request after saving.");
  add_train(app);
  add_generate(app);
  add_eval(app);
  add_plan(app);
  try {
    init_logging();
    register_cpu_kernels();
    register_layer_cpu_kernels();
    register_cuda_kernels();
    register_layer_cuda_kernels();
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);  // prints help, version or what is wrong
    return code == 0 ? 0 : static_cast<int>(ExitCode::kUsage);
  } catch (const Error& e) {
    return fail(e.code(), e.what());
  } catch (const std::bad_alloc&) {
    return fail(ExitCode::kOutOfMemory,
                "out of memory; reduce data.batch_size, micro_batch_size or the model");
  } catch (const std::exception& e) {
    return fail(ExitCode::kInternal, e.what());
  }
}

}  // namespace
}  // namespace carousel

int main(int argc, char** argv) { return carousel::run(argc, argv); }
