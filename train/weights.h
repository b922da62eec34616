// Parameters and optimizer moments as named tensors, and back.
#pragma once

#include <functional>
#include <vector>

#include "core/tensor/safetensors.h"
#include "layers/parameters.h"
#include "optim/adamw.h"

namespace carousel {

/// The parameters' parts of `masters`, which is parameters.master() or a copy of it, under the
/// parameters' names; views, nothing is copied. Of a parameter that is held in part, flat pieces
/// "<name>[begin:end]" in elements of the parameter.
std::vector<NamedTensor> named_weights(const ParameterSet& parameters, const Tensor& masters);
/// The parameters whole, each put together on the host when its turn comes: from `mine` of
/// named_weights() and those in files that others have written. The files are looked at when the
/// first tensor is made. Making one throws CheckpointError if its pieces do not cover it once.
std::vector<TensorSource> whole_weights(
    const ParameterSet& parameters, const std::vector<NamedTensor>& mine,
    const std::function<const std::vector<SafetensorsFile>&()>& others);
/// "exp_avg.<name>" and "exp_avg_sq.<name>" of every parameter; views of `m` and `v`, the
/// optimizer's or copies of them. Of a parameter that the optimizer owns in part, flat pieces
/// "exp_avg.<name>[begin:end]" in elements of the parameter.
std::vector<NamedTensor> named_moments(const AdamW& optimizer, const ParameterSet& parameters,
                                       const Tensor& m, const Tensor& v);

/// Overwrites the masters, or what is held of them, and the compute copies from the file, whose
/// floating dtypes convert; tensor by tensor. Throws CheckpointError that lists every missing,
/// unexpected or misshapen tensor; nothing is changed then.
void load_weights(const SafetensorsFile& file, ParameterSet& parameters);
/// The same for the moments, of which this optimizer takes what it owns: the files together hold
/// those of all parameters, whole or in pieces, however they were divided when they were saved.
void load_moments(const std::vector<SafetensorsFile>& files, const AdamW& optimizer,
                  const ParameterSet& parameters);

}  // namespace carousel
