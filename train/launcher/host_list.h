// Slurm's short form of lists of hosts.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace carousel {

/// The hosts of "gpu[01-03,07],login-a" in their order: gpu01, gpu02, gpu03, gpu07, login-a. Ranges
/// keep their leading zeros; several brackets in one name multiply. Throws UsageError for what is
/// no such list, names nobody, or names more than 65536 hosts.
std::vector<std::string> expand_host_list(std::string_view text);

}  // namespace carousel
