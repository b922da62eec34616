// The subcommands of `carousel`. Each add_… function declares its options on the program and does
// its work in the subcommand's callback; failures are exceptions, which main() turns into exit
// codes.
#pragma once

#include <CLI/CLI.hpp>

#include "train/config/config.h"

namespace carousel {

void add_train(CLI::App& app);
void add_run(CLI::App& app);
void add_data(CLI::App& app);
void add_generate(CLI::App& app);
void add_eval(CLI::App& app);
void add_plan(CLI::App& app);
void add_check(CLI::App& app);
void add_checkpoint(CLI::App& app);
void add_config(CLI::App& app);
void add_doctor(CLI::App& app);
void add_import(CLI::App& app);
void add_export(CLI::App& app);

/// The option --device auto|cpu|cuda, shared by the commands that run a model.
void add_device_option(CLI::App& command, DeviceChoice& device);
/// The option --precision f32|bf16.
void add_precision_option(CLI::App& command, std::optional<DType>& precision);

}  // namespace carousel
