#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/parallel.h"
#include "core/kernels/register.h"
#include "layers/register.h"
#include "train/commands/commands.h"
#include "train/config/suggest.h"
#include "train/environment.h"

namespace carousel {
namespace {

constexpr void (*kCommands[])(CLI::App&) = {
    add_train,      add_run,    add_generate, add_eval,   add_plan,   add_check,
    add_checkpoint, add_config, add_data,     add_doctor, add_import, add_export,
};

/// Prints each line of the message behind "error: ", and gives the exit code back.
int fail(ExitCode code, std::string_view message) {
  finish_status();
  std::fflush(stdout);  // what was printed until then comes before it
  const char* prefix = code == ExitCode::kPreempted ? "" : "error: ";
  while (!message.empty()) {
    const std::string line(message.substr(0, message.find('\n')));
    std::fprintf(stderr, "%s%s\n", prefix, line.c_str());
    message.remove_prefix(std::min(message.size(), line.size() + 1));
  }
  return static_cast<int>(code);
}

void refuse_unknown_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  if (std::find(names.begin(), names.end(), argv[1]) != names.end()) return;
  const auto near = closest(argv[1], names);
  throw UsageError("unknown command '{}'; {}", argv[1],
                   near ? fmt::format("did you mean '{}'?", *near) : "see carousel --help");
}

/// What CLI11 found wrong with the command line, on one line.
std::string usage_message(const CLI::App& app, const CLI::ParseError& error) {
  const auto commands = app.get_subcommands();
  std::string text = error.what();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return fmt::format("{}; see carousel {}--help", text,
                     commands.empty() ? "" : commands.front()->get_name() + " ");
}

int run(int argc, char** argv) {
  CLI::App app("Carousel trains xLSTM language models.", "carousel");
  app.require_subcommand(1);
  app.set_version_flag("--version", version_text());
  app.footer(
      "Exit codes: 0 done, 2 usage or configuration, 3 data, 4 checkpoint, 5 out of memory,\n"
      "6 non-finite loss, 7 peer failure, 70 a bug in carousel, 75 stopped on request after "
      "saving.\n"
      "Example: carousel train configs/shakespeare_cpu.yaml data.train=input.txt");
  for (const auto& add : kCommands) add(app);
  refuse_unknown_command(app, argc, argv);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() != 0) throw UsageError("{}", usage_message(app, e));
    app.exit(e);  // prints help or version
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    throw UsageError("cannot write to the standard output");
  return static_cast<int>(ExitCode::kOk);
}

}  // namespace
}  // namespace carousel

int main(int argc, char** argv) {
  using namespace carousel;
  // A limit on file sizes is an error of the write that meets it, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    init_logging();
    init_threads();
    register_cpu_kernels();
    register_layer_cpu_kernels();
    register_cuda_kernels();
    register_layer_cuda_kernels();
    return run(argc, argv);
  } catch (const Error& e) {
    return fail(e.code(), e.what());
  } catch (const std::bad_alloc&) {
    return fail(ExitCode::kOutOfMemory,
                "out of memory; reduce data.batch_size, micro_batch_size or the model");
  } catch (const std::system_error& e) {  // a file, a pipe, a thread that the system refuses
    return fail(ExitCode::kUsage, e.what());
  } catch (const std::exception& e) {
    return fail(ExitCode::kInternal, e.what());
  }
}
