#include "services/rund/runtime/userns.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"
#include "libs/os/pipe.h"
#include "libs/process/command.h"

namespace crisp::rund {
namespace {

const char* NameOf(os::NamespaceKind kind) {
  switch (kind) {
    case os::NamespaceKind::kNet: return "net";
    case os::NamespaceKind::kIpc: return "ipc";
    case os::NamespaceKind::kUts: return "uts";
    case os::NamespaceKind::kUser: return "user";
    case os::NamespaceKind::kPid: return "pid";
  }
  return "";
}

/// True when the helper says that it stands, false when it has ended instead.
Result<bool> Stands(const CallContext& cc, int fd) {
  pollfd poller{.fd = fd, .events = POLLIN};
  for (;;) {
    CRISP_TRY(cc.Check());
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(cc.Remaining()).count();
    const int ready = poll(&poller, 1, static_cast<int>(std::min<std::int64_t>(left, 1000)));
    if (ready < 0 && errno != EINTR) return Status::FromErrno(errno, "poll");
    if (ready <= 0) continue;
    char byte = 0;
    return read(fd, &byte, 1) == 1;
  }
}

}  // namespace

Result<std::vector<os::NamespacePin>> PinUserNamespace(
    const CallContext& cc, const std::string& helper, const std::string& path,
    const os::IdRange& uids, const os::IdRange& gids, std::vector<os::NamespaceTarget> others) {
  os::Pipe hold = CRISP_TRY(os::MakePipe());
  os::Pipe ready = CRISP_TRY(os::MakePipe());
  os::Pipe errors = CRISP_TRY(os::MakePipe());
  others.insert(others.begin(), {os::NamespaceKind::kUser, path});
  process::Command command;
  command.program = helper;
  command.args = {"--hold"};
  for (const os::NamespaceTarget& target : others) command.args.emplace_back(NameOf(target.kind));
  command.in_fd = hold.read.get();
  command.out_fd = ready.write.get();
  command.err_fd = errors.write.get();
  process::Child child = CRISP_TRY(process::Spawn(command).While("start crisp-pause"));
  hold.read.reset();
  ready.write.reset();
  errors.write.reset();
  Cleanup end([&] {
    hold.write.reset();  // it ends with its stdin
    const auto code = child.Wait(CallContext::Background(std::chrono::seconds(5)));
    log::IfError("end crisp-pause", code.ok() ? Status::Ok() : code.status());
  });
  if (!CRISP_TRY(Stands(cc.Within(std::chrono::seconds(10)), ready.read.get()))) {
    const auto words = os::ReadAll(errors.read.get(), "crisp-pause", KiB(4));
    return FailedPrecondition("make a user namespace: {}", words.ok() ? *words : "no reason given");
  }
  CRISP_TRY(os::WriteIdMaps(child.pid(), uids, gids));
  return os::NamespacePin::OfProcess(child.pid(), others);
}

Status ProbeUserNamespaces(const CallContext& cc, const std::string& helper,
                           const std::string& store_dir, const std::string& scratch_dir) {
  constexpr os::IdRange kIds{0, 100'000, 65'536};
  const std::string lower = scratch_dir + "/lower";
  const std::string other = scratch_dir + "/other";  // an overlay without upper has two layers
  const std::string merged = scratch_dir + "/merged";
  // Of one that was cut short.
  CRISP_TRY(os::UnmountBelow(scratch_dir));
  CRISP_TRY(os::RemoveTree(scratch_dir));
  CRISP_TRY(os::MakeDirs(lower, 0700));
  CRISP_TRY(os::MakeDirs(other, 0700));
  CRISP_TRY(os::MakeDirs(merged, 0700));
  Cleanup remove([&] { log::IfError("probe", os::RemoveTree(scratch_dir)); });
  // Gone again when this returns.
  const auto pins = CRISP_TRY(PinUserNamespace(cc, helper, scratch_dir + "/user", kIds, kIds, {}));
  const os::UniqueFd userns = CRISP_TRY(os::Open(pins.front().path(), O_RDONLY));
  CRISP_TRY(os::IdmappedBindMount(store_dir, lower, userns.get()));
  Cleanup unmount([&] { log::IfError("probe", os::UnmountBelow(scratch_dir)); });
  os::Overlay overlay;
  overlay.lower_dirs = {lower, other};
  return os::MountOverlay(overlay, merged)
      .While("an overlay on ID-mapped layers (Linux 5.19 and later can)");
}

}  // namespace crisp::rund
