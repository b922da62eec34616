// Parameters and optimizer moments as named tensors, and back.
#pragma once

#include <vector>

#include "core/tensor/safetensors.h"
#include "layers/parameters.h"
#include "optim/adamw.h"

namespace carousel {

/// The parameters' parts of `masters`, the master arena or a copy of it, under the parameters'
/// names; views, nothing is copied.
std::vector<NamedTensor> named_weights(const ParameterSet& parameters, const Tensor& masters);
/// "exp_avg.<name>" and "exp_avg_sq.<name>" of every parameter; views of `m` and `v`, the
/// optimizer's or copies of them. Of a parameter that the optimizer owns in part, flat pieces
/// "exp_avg.<name>[begin:end]" in elements of the parameter.
std::vector<NamedTensor> named_moments(const AdamW& optimizer, const ParameterSet& parameters,
                                       const Tensor& m, const Tensor& v);

/// Overwrites the masters from the file, whose floating dtypes convert, and refreshes the compute
/// copies. Throws CheckpointError that lists every missing, unexpected or misshapen tensor; nothing
/// is changed then.
void load_weights(const SafetensorsFile& file, ParameterSet& parameters);
/// The same for the moments, of which this optimizer takes what it owns: the files together hold
/// those of all parameters, whole or in pieces, however they were divided when they were saved.
void load_moments(const std::vector<SafetensorsFile>& files, const AdamW& optimizer,
                  const ParameterSet& parameters);

}  // namespace carousel
