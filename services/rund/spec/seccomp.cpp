#include "services/rund/spec/seccomp.h"

#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>

#include "libs/base/try.h"
#include "libs/digest/digest.h"
#include "libs/json/json.h"
#include "libs/os/atomic_file.h"
#include "libs/os/files.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

// Above all numbers that any of our architectures has used so far.
constexpr int kHighestNumber = 1023;

struct Architecture {
  std::uint32_t token;
  const char* name;
};

std::vector<Architecture> Architectures() {
  switch (seccomp_arch_native()) {
    case SCMP_ARCH_X86_64:
      return {{SCMP_ARCH_X86_64, "SCMP_ARCH_X86_64"},
              {SCMP_ARCH_X86, "SCMP_ARCH_X86"},
              {SCMP_ARCH_X32, "SCMP_ARCH_X32"}};
    case SCMP_ARCH_AARCH64:
      return {{SCMP_ARCH_AARCH64, "SCMP_ARCH_AARCH64"}, {SCMP_ARCH_ARM, "SCMP_ARCH_ARM"}};
    default: return {};
  }
}

Result<std::uint32_t> Action(const std::string& name, std::uint16_t errno_value) {
  if (name == "SCMP_ACT_ERRNO") return SCMP_ACT_ERRNO(errno_value);
  if (name == "SCMP_ACT_TRACE") return SCMP_ACT_TRACE(errno_value);
  if (name == "SCMP_ACT_ALLOW") return SCMP_ACT_ALLOW;
  if (name == "SCMP_ACT_LOG") return SCMP_ACT_LOG;
  if (name == "SCMP_ACT_TRAP") return SCMP_ACT_TRAP;
  if (name == "SCMP_ACT_KILL" || name == "SCMP_ACT_KILL_THREAD") return SCMP_ACT_KILL_THREAD;
  if (name == "SCMP_ACT_KILL_PROCESS") return SCMP_ACT_KILL_PROCESS;
  return InvalidArgument("seccomp: the action \"{}\" cannot be compiled", name);
}

Result<scmp_compare> Operator(const std::string& name) {
  static const std::map<std::string, scmp_compare, std::less<>> kOperators = {
      {"SCMP_CMP_NE", SCMP_CMP_NE},
      {"SCMP_CMP_LT", SCMP_CMP_LT},
      {"SCMP_CMP_LE", SCMP_CMP_LE},
      {"SCMP_CMP_EQ", SCMP_CMP_EQ},
      {"SCMP_CMP_GE", SCMP_CMP_GE},
      {"SCMP_CMP_GT", SCMP_CMP_GT},
      {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ}};
  const auto it = kOperators.find(name);
  if (it == kOperators.end()) return InvalidArgument("seccomp: unknown operator \"{}\"", name);
  return it->second;
}

/// The section has been checked (NormaliseSeccomp) or is our own: no negative numbers, right types.
std::uint64_t Unsigned(const json& object, const char* key, std::uint64_t fallback) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_integer() ? it->get<std::uint64_t>() : fallback;
}

Status AddRules(scmp_filter_ctx filter, const json& rule, std::uint32_t default_action) {
  const std::uint32_t action =
      CRISP_TRY(Action(rule.value("action", std::string()),
                       static_cast<std::uint16_t>(Unsigned(rule, "errnoRet", EPERM))));
  if (action == default_action) return Status::Ok();  // libseccomp takes no such rule
  std::vector<scmp_arg_cmp> conditions;
  std::array<int, 6> uses{};
  if (const auto args = rule.find("args"); args != rule.end() && args->is_array()) {
    for (const json& arg : *args) {
      const auto index = static_cast<unsigned>(Unsigned(arg, "index", 0));
      if (index >= uses.size()) return InvalidArgument("seccomp: argument index {}", index);
      ++uses[index];
      const scmp_compare compare = CRISP_TRY(Operator(arg.value("op", std::string())));
      conditions.push_back(
          {index, compare, Unsigned(arg, "value", 0), Unsigned(arg, "valueTwo", 0)});
    }
  }
  // Several conditions on one argument are alternatives, as all OCI runtimes read them.
  const bool alternatives =
      std::any_of(uses.begin(), uses.end(), [](int count) { return count > 1; });
  for (const json& item : rule.at("names")) {
    const std::string& name = item.get_ref<const std::string&>();
    const int number = seccomp_syscall_resolve_name(name.c_str());
    if (number == __NR_SCMP_ERROR) continue;  // of a newer kernel than this libseccomp
    const auto add = [filter, action, number](const scmp_arg_cmp* first, std::size_t count) {
      return seccomp_rule_add_array(filter, action, number, static_cast<unsigned>(count), first);
    };
    int error = 0;
    if (alternatives) {
      for (const scmp_arg_cmp& condition : conditions) {
        if (error == 0) error = add(&condition, 1);
      }
    } else {
      error = add(conditions.data(), conditions.size());
    }
    if (error != 0) {
      return InvalidArgument("seccomp: a rule for {} is not taken: {}", name,
                             Status::FromErrno(-error, "libseccomp").message());
    }
  }
  return Status::Ok();
}

Result<std::string> Export(scmp_filter_ctx filter) {
  const os::UniqueFd memory(memfd_create("seccomp", MFD_CLOEXEC));
  if (!memory.valid()) return Status::Errno(errno, "memfd_create");
  if (const int error = seccomp_export_bpf(filter, memory.get()); error != 0) {
    return InvalidArgument("seccomp: the filter cannot be generated: {}",
                           Status::FromErrno(-error, "libseccomp").message());
  }
  if (lseek(memory.get(), 0, SEEK_SET) != 0) return Status::Errno(errno, "lseek");
  return os::ReadAll(memory.get(), "seccomp filter", MiB(1));
}

}  // namespace

std::vector<std::string> SeccompArchitectures() {
  std::vector<std::string> names;
  for (const Architecture& architecture : Architectures()) names.emplace_back(architecture.name);
  return names;
}

namespace {

std::vector<std::string> FindKnownSyscalls() {
  std::set<std::string> names;
  for (const Architecture& architecture : Architectures()) {
    if (architecture.token == SCMP_ARCH_X32) continue;  // x86_64's names
    for (int number = 0; number <= kHighestNumber; ++number) {
      const std::unique_ptr<char, void (*)(void*)> name(
          seccomp_syscall_resolve_num_arch(architecture.token, number), &std::free);
      if (name != nullptr) names.emplace(name.get());
    }
    if (architecture.token == SCMP_ARCH_ARM) {
      // ARM's private calls, far above the others.
      names.insert({"breakpoint", "cacheflush", "set_tls", "usr26", "usr32"});
    }
  }
  return {names.begin(), names.end()};
}

}  // namespace

const std::vector<std::string>& KnownSyscalls() {
  static const std::vector<std::string> kNames = FindKnownSyscalls();  // a millisecond's work
  return kNames;
}

Result<std::string> CompileSeccomp(const json& seccomp) {
  const std::uint32_t default_action =
      CRISP_TRY(Action(seccomp.value("defaultAction", std::string()),
                       static_cast<std::uint16_t>(Unsigned(seccomp, "defaultErrnoRet", EPERM))));
  const std::unique_ptr<void, void (*)(void*)> filter(seccomp_init(default_action),
                                                      &seccomp_release);
  if (filter == nullptr) return Internal("seccomp_init failed");
  if (const auto list = seccomp.find("architectures"); list != seccomp.end()) {
    for (const json& item : *list) {
      const std::string& name = item.get_ref<const std::string&>();
      std::string lower = name.starts_with("SCMP_ARCH_") ? name.substr(10) : name;
      for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      const std::uint32_t token = seccomp_arch_resolve_name(lower.c_str());
      if (token == 0) return InvalidArgument("seccomp: unknown architecture \"{}\"", name);
      const int error = seccomp_arch_add(filter.get(), token);
      if (error != 0 && error != -EEXIST) {
        return InvalidArgument("seccomp: the architecture {} cannot be filtered here", name);
      }
    }
  }
  if (const auto rules = seccomp.find("syscalls"); rules != seccomp.end()) {
    for (const json& rule : *rules) CRISP_TRY(AddRules(filter.get(), rule, default_action));
  }
  return Export(filter.get());
}

Result<std::string> CompileSeccompCached(const json& seccomp, const std::string& cache_dir) {
  if (cache_dir.empty()) return CompileSeccomp(seccomp);
  // Another libseccomp may know more calls by name.
  const scmp_version* version = seccomp_version();
  const std::string key =
      digest::Sha256Hex(fmt::format("{} {}.{}.{} {}", seccomp_arch_native(), version->major,
                                    version->minor, version->micro, crisp::json::Dump(seccomp)));
  const std::string path = fmt::format("{}/{}.bpf", cache_dir, key);
  if (Result<std::string> kept = os::ReadFile(path, MiB(1)); kept.ok() && !kept->empty()) {
    return kept;
  }
  std::string program = CRISP_TRY(CompileSeccomp(seccomp));
  Status stored = os::MakeDirs(cache_dir, 0700);
  if (stored.ok()) stored = os::WriteFileAtomic(path, program, 0600);
  static_cast<void>(stored.ok());  // the next container compiles again
  return program;
}

}  // namespace crisp::rund
