// What this program was built from, and how.
#pragma once

namespace carousel {

struct BuildInfo {
  const char* version;     ///< "0.1.0"
  const char* git_commit;  ///< "0bc4e2510f3a", "-dirty" behind it if files were changed; or empty
  const char* build_type;  ///< CMake's: "Release"
  const char* compiler;    ///< "GNU 12.2.0"
  const char* cpu_arch;    ///< -march of the CPU code; empty for the compiler's default
  const char* sanitizers;  ///< "address,undefined"; empty for none
  const char* yaml_cpp;    ///< version of yaml-cpp, which has no macro for it
};

const BuildInfo& build_info();

}  // namespace carousel
