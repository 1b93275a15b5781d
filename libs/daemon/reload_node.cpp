#include "libs/daemon/reload_node.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "crisp/daemon/v1/daemon.grpc.pb.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/rpc/peer.h"

namespace crisp::daemon {
namespace {

/// For a daemon that has just gone to come back; who is away for longer is left out.
constexpr std::chrono::milliseconds kWait{500};
constexpr std::chrono::seconds kStep{30};

/// One daemon that answers.
class Member {
 public:
  Member(const std::string& name, const std::string& socket)
      : peer_(name, socket, kWait), stub_(v1::Daemon::NewStub(peer_.channel())) {}

  const std::string& name() const { return peer_.name(); }
  Result<v1::ReloadResponse> Do(const CallContext& cc, v1::ReloadRequest::Step step,
                                const std::string& fingerprint = "") {
    v1::ReloadRequest request;
    request.set_step(step);
    request.set_fingerprint(fingerprint);
    return rpc::Call(cc.Within(kStep), peer_, *stub_, &v1::Daemon::Stub::Reload, request);
  }

 private:
  rpc::Peer peer_;
  std::unique_ptr<v1::Daemon::Stub> stub_;
};

/// Whoever has a socket: "1.sock", not "1.metrics.sock".
std::vector<Member> MembersOf(const std::string& run_root) {
  std::vector<Member> members;
  for (const std::string service : {"crid", "imaged", "netd", "rund"}) {
    const std::string dir = fmt::format("{}/{}", run_root, service);
    for (const std::string& file : os::ListDir(dir).value_or(std::vector<std::string>())) {
      const std::string instance = file.substr(0, file.find('.'));
      if (file != instance + ".sock") continue;
      members.emplace_back(fmt::format("{}/{}", service, instance),
                           fmt::format("{}/{}", dir, file));
    }
  }
  return members;
}

void UndoAll(const CallContext& cc, const std::vector<Member*>& applied,
             const std::string& fingerprint) {
  for (Member* member : applied) {
    const auto undone = member->Do(cc, v1::ReloadRequest::UNDO, fingerprint);
    if (!undone.ok()) {
      log::Warn("a daemon keeps settings that another refused",
                {{"daemon", member->name()}, {"error", undone.status()}});
    }
  }
}

}  // namespace

Result<std::vector<Reloaded>> ReloadNode(const CallContext& cc, const std::string& run_root) {
  std::vector<Member> members = MembersOf(run_root);
  std::vector<Member*> checked;
  std::vector<Reloaded> reloaded;
  std::string fingerprint;
  for (Member& member : members) {
    auto answer = member.Do(cc, v1::ReloadRequest::CHECK);
    if (answer.code() == Code::kUnavailable) continue;
    if (!answer.ok()) return answer.status().While("{} refuses", member.name());
    if (checked.empty()) fingerprint = answer->fingerprint();
    if (answer->fingerprint() != fingerprint) {
      return Aborted("{} reads other settings than {}: they change just now, or --config differs",
                     member.name(), checked.front()->name());
    }
    checked.push_back(&member);
    reloaded.push_back({member.name(),
                        {answer->changed().begin(), answer->changed().end()},
                        {answer->needs_restart().begin(), answer->needs_restart().end()}});
  }
  if (checked.empty())
    return Unavailable("no daemon answers below {} (only root may ask them)", run_root);

  std::vector<Member*> applied;
  for (Member* member : checked) {
    const auto answer = member->Do(cc, v1::ReloadRequest::APPLY, fingerprint);
    applied.push_back(member);  // it may have, whatever it answers
    // Who has gone meanwhile reads the same files when it comes back.
    if (answer.ok() || answer.code() == Code::kUnavailable) continue;
    UndoAll(cc, applied, fingerprint);
    return answer.status().While("{} refuses", member->name());
  }
  return reloaded;
}

}  // namespace crisp::daemon
