#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"

namespace crisp::rund {

/// The architectures whose system calls a container on this machine may make, the native one first:
/// "SCMP_ARCH_X86_64" ...
std::vector<std::string> SeccompArchitectures();

/// The names of all system calls that libseccomp knows for these architectures; sorted.
/// Any thread.
const std::vector<std::string>& KnownSyscalls();

/// An OCI seccomp section as the kernel's filter program (an array of struct sock_filter).
/// kInvalidArgument: something that libseccomp does not take.
Result<std::string> CompileSeccomp(const nlohmann::json& seccomp);

/// As CompileSeccomp, with the programs kept as files by the hash of the section in `cache_dir`
/// (made when absent; empty = no cache). An unusable cache costs time only.
Result<std::string> CompileSeccompCached(const nlohmann::json& seccomp,
                                         const std::string& cache_dir);

}  // namespace crisp::rund
