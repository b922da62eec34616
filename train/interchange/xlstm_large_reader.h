// A model directory of family A, read: its configuration, and its tensors as parameters.
#pragma once

#include <vector>

#include "train/interchange/layout.h"
#include "train/interchange/model_files.h"

namespace carousel {

/// The configuration in the directory's config.json, with the feed-forward width that the tensors
/// have: implementations round it differently. Throws CheckpointError.
XlstmLargeConfig read_model_config(const ModelFiles& files);

/// Throws CheckpointError that lists every missing, misshapen, non-floating and unexpected tensor.
void check_tensors(const ModelFiles& files, const std::vector<StackedTensor>& wanted);

/// All parameters in host memory as `dtype`, under their own names and in their order, from files
/// of any naming and weight mode; parts of fused tensors are views. Checks the tensors first.
std::vector<NamedTensor> read_parameters(const ModelFiles& files, const ParameterSet& parameters,
                                         DType dtype);

}  // namespace carousel
