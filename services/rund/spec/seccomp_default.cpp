#include "services/rund/spec/seccomp.h"
#include "services/rund/spec/seccomp_table.h"
#include "services/rund/spec/security.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

constexpr int kEperm = 1;
constexpr int kEnosys = 38;

json Rule(const std::vector<std::string>& names, const char* action) {
  return {{"names", names}, {"action", action}};
}

json Argument(unsigned index, std::uint64_t value, std::uint64_t value_two, const char* op) {
  return {{"index", index}, {"value", value}, {"valueTwo", value_two}, {"op", op}};
}

json Denied(const std::vector<std::string>& names) {
  json rule = Rule(names, "SCMP_ACT_ERRNO");
  rule["errnoRet"] = kEperm;
  return rule;
}

void AddConditional(bool admin, json& rules) {
  // New namespaces are for CAP_SYS_ADMIN: CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}.
  if (admin) {
    rules.push_back(Rule({"clone"}, "SCMP_ACT_ALLOW"));
  } else {
    constexpr std::uint64_t kNamespaces = 0x7E020000;
    json allowed = Rule({"clone"}, "SCMP_ACT_ALLOW");
    allowed["args"] = json::array({Argument(0, kNamespaces, 0, "SCMP_CMP_MASKED_EQ")});
    rules.push_back(std::move(allowed));
    for (std::uint64_t bit = 1; bit <= kNamespaces; bit <<= 1U) {
      if ((kNamespaces & bit) == 0) continue;
      json denied = Denied({"clone"});
      denied["args"] = json::array({Argument(0, bit, bit, "SCMP_CMP_MASKED_EQ")});
      rules.push_back(std::move(denied));
    }
  }
  // PER_LINUX, PER_LINUX32, each also with UNAME26, and the question for the present one. Above all
  // not ADDR_NO_RANDOMIZE and READ_IMPLIES_EXEC.
  for (const std::uint64_t persona : {0x0ULL, 0x8ULL, 0x20000ULL, 0x20008ULL, 0xFFFFFFFFULL}) {
    json rule = Rule({"personality"}, "SCMP_ACT_ALLOW");
    rule["args"] = json::array({Argument(0, persona, 0, "SCMP_CMP_EQ")});
    rules.push_back(std::move(rule));
  }
  // AF_VSOCK reaches the hypervisor and no network namespace holds it back.
  constexpr std::uint64_t kVsock = 40;
  json others = Rule({"socket"}, "SCMP_ACT_ALLOW");
  others["args"] = json::array({Argument(0, kVsock, 0, "SCMP_CMP_NE")});
  rules.push_back(std::move(others));
  json vsock = Denied({"socket"});
  vsock["args"] = json::array({Argument(0, kVsock, 0, "SCMP_CMP_EQ")});
  rules.push_back(std::move(vsock));
}

}  // namespace

json DefaultSeccomp(const CapabilitySets& capabilities) {
  std::set<std::string_view> denied;
  for (const SeccompDenial& one : SeccompDenials()) {
    denied.insert(one.calls.begin(), one.calls.end());
  }
  for (const SeccompDenial& one : SeccompDenials()) {
    if (one.capability.empty() || !capabilities.Has(one.capability)) continue;
    for (const std::string_view call : one.calls) denied.erase(call);
  }
  std::set<std::string_view> unlisted(SeccompNotThere().begin(), SeccompNotThere().end());
  for (const SeccompCondition& one : SeccompConditions()) unlisted.insert(one.call);
  // Its flags are behind a pointer, where no filter sees them; on ENOSYS every libc takes clone.
  if (denied.erase("clone3") > 0) unlisted.insert("clone3");

  std::vector<std::string> allow;
  std::vector<std::string> deny;
  for (const std::string& name : KnownSyscalls()) {
    if (unlisted.contains(name)) continue;
    (denied.contains(name) ? deny : allow).push_back(name);
  }
  json rules = json::array();
  rules.push_back(Rule(allow, "SCMP_ACT_ALLOW"));
  AddConditional(capabilities.Has("CAP_SYS_ADMIN"), rules);
  rules.push_back(Denied(deny));
  return {{"defaultAction", "SCMP_ACT_ERRNO"},
          {"defaultErrnoRet", kEnosys},
          {"architectures", SeccompArchitectures()},
          {"syscalls", std::move(rules)}};
}

}  // namespace crisp::rund
