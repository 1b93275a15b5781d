#include "integration/bench/floor_pod.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <filesystem>
#include <thread>
#include <utility>
#include <vector>

#include "libs/base/try.h"
#include "libs/os/cgroup.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"
#include "libs/os/namespaces.h"
#include "libs/os/netlink.h"
#include "libs/process/command.h"

namespace crisp::bench {
namespace {

using Json = nlohmann::json;
using std::chrono::seconds;

CallContext Call() { return CallContext::Background(seconds(60), "floor"); }

Json ParseJson(const std::string& text) { return Json::parse(text, nullptr, false); }

/// Mounts of the spec whose sources were the sample pod's own files: they get files of ours.
bool IsPodFile(const std::string& destination) {
  return destination == "/etc/resolv.conf" || destination == "/etc/hosts" ||
         destination == "/etc/hostname" || destination == "/run/.containerenv";
}

}  // namespace

FloorPod::FloorPod(const FloorOptions& options, std::string id)
    : options_(options), id_(std::move(id)), dir_(options.directory + "/" + id_) {}

FloorPod::~FloorPod() { static_cast<void>(Stop()); }

Result<std::unique_ptr<FloorPod>> FloorPod::Start(const FloorOptions& options,
                                                  const std::string& id) {
  using std::chrono::steady_clock;
  const auto begin = steady_clock::now();
  std::unique_ptr<FloorPod> pod(new FloorPod(options, id));
  for (const char* name : {"", "/rootfs", "/upper", "/work", "/exits", "/shm"}) {
    CRISP_TRY(os::MakeDirs(pod->dir_ + name));
  }
  CRISP_TRY(pod->MakeNamespaces());
  CRISP_TRY(pod->Cni("ADD"));
  const auto sandboxed = steady_clock::now();
  CRISP_TRY(pod->MountRootfs());
  CRISP_TRY(pod->WriteBundle());
  CRISP_TRY(pod->Create());
  const auto created = steady_clock::now();
  CRISP_TRY(pod->Runtime({"start", id}));
  pod->stages_ = {sandboxed - begin, created - sandboxed, steady_clock::now() - created};
  return pod;
}

Status FloorPod::MakeNamespaces() {
  std::vector<os::NamespaceTarget> targets = {{os::NamespaceKind::kIpc, dir_ + "/ipc"},
                                              {os::NamespaceKind::kUts, dir_ + "/uts"}};
  const bool network = !options_.cni_conf.empty();
  if (network) targets.push_back({os::NamespaceKind::kNet, dir_ + "/net"});
  auto pins = CRISP_TRY(os::NamespacePin::Create(
      targets, [&]() -> Status { return network ? os::SetLoopbackUp() : Status::Ok(); }));
  for (os::NamespacePin& pin : pins) pin.Commit();
  return Status::Ok();
}

Status FloorPod::Cni(const char* verb) {
  if (options_.cni_conf.empty()) return Status::Ok();
  const Json conf = ParseJson(CRISP_TRY(os::ReadFile(options_.cni_conf)));
  const bool add = std::string_view(verb) == "ADD";
  std::vector<Json> plugins = conf["plugins"];
  if (!add) std::reverse(plugins.begin(), plugins.end());
  for (Json plugin : plugins) {
    plugin["cniVersion"] = conf["cniVersion"];
    plugin["name"] = conf["name"];
    if (plugin.contains("capabilities")) {
      plugin.erase("capabilities");
      plugin["runtimeConfig"] = {{"portMappings", Json::array()}};
    }
    if (!cni_result_.is_null()) plugin["prevResult"] = cni_result_;
    process::Command command;
    command.program = options_.cni_bin + "/" + plugin["type"].get<std::string>();
    command.env = {fmt::format("CNI_COMMAND={}", verb), "CNI_CONTAINERID=" + id_,
                   "CNI_NETNS=" + dir_ + "/net",        "CNI_IFNAME=eth0",
                   "CNI_PATH=" + options_.cni_bin,      "GOMAXPROCS=1",
                   "PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
    command.stdin_data = plugin.dump();
    const process::Output output = CRISP_TRY(process::Run(Call(), command));
    if (output.exit_code != 0)
      return Internal("{} {}: {}{}", command.program, verb, output.out, output.err);
    if (add) cni_result_ = ParseJson(output.out);
  }
  return Status::Ok();
}

Status FloorPod::MountRootfs() const {
  return os::MountOverlay({.lower_dirs = {options_.lower},
                           .upper_dir = dir_ + "/upper",
                           .work_dir = dir_ + "/work",
                           .options = {"volatile"}},
                          dir_ + "/rootfs");
}

Status FloorPod::WriteBundle() const {
  Json spec = options_.spec;
  spec["root"]["path"] = dir_ + "/rootfs";
  spec["linux"]["cgroupsPath"] = options_.cgroup_parent + "/" + id_;
  for (Json& space : spec["linux"]["namespaces"]) {
    const std::string type = space["type"];
    if (space.contains("path")) {
      if (type == "ipc" || type == "uts") space["path"] = dir_ + "/" + type;
      if (type == "network") space["path"] = dir_ + "/net";
    }
  }
  for (Json& mount : spec["mounts"]) {
    const std::string destination = mount["destination"];
    if (IsPodFile(destination)) {
      mount["source"] = dir_ + "/file-" + std::filesystem::path(destination).filename().string();
      CRISP_TRY(os::WriteFile(mount["source"], "127.0.0.1 localhost\n"));
    } else if (destination == "/dev/shm" && mount["type"] == "bind") {
      mount["source"] = dir_ + "/shm";
    }
  }
  return os::WriteFile(dir_ + "/config.json", spec.dump());
}

Status FloorPod::Create() {
  int start_pipe[2];
  int sync_pipe[2];
  if (::pipe2(start_pipe, O_CLOEXEC) != 0 || ::pipe2(sync_pipe, O_CLOEXEC) != 0) {
    return Status::Errno(errno, "pipe");
  }
  const os::UniqueFd start_read(start_pipe[0]);
  const os::UniqueFd start_write(start_pipe[1]);
  const os::UniqueFd sync_read(sync_pipe[0]);
  os::UniqueFd sync_write(sync_pipe[1]);
  CRISP_TRY(os::WriteAll(start_write.get(), "x", "start pipe"));
  process::Command command;
  command.program = options_.conmon;
  command.args = {"--api-version",
                  "1",
                  "-c",
                  id_,
                  "-u",
                  id_,
                  "-r",
                  options_.runtime,
                  "-b",
                  dir_,
                  "-p",
                  dir_ + "/pid",
                  "-P",
                  dir_ + "/conmon.pid",
                  "-l",
                  "k8s-file:" + dir_ + "/ctr.log",
                  "--exit-dir",
                  dir_ + "/exits",
                  "--persist-dir",
                  dir_,
                  "--full-attach",
                  "--no-sync-log",
                  "--log-level",
                  "warning",
                  "--runtime-arg",
                  "--root=" + options_.directory + "/runtime"};
  command.env = process::PlainEnvironment();
  command.env.push_back("_OCI_SYNCPIPE=3");
  command.env.push_back("_OCI_STARTPIPE=4");
  command.fds = {{3, sync_write.get()}, {4, start_read.get()}};
  process::Child conmon = CRISP_TRY(process::Spawn(command));
  sync_write.reset();
  std::string line;
  char byte = 0;
  while (line.find('\n') == std::string::npos && ::read(sync_read.get(), &byte, 1) == 1)
    line += byte;
  CRISP_TRY(conmon.Wait(Call()));
  if (ParseJson(line).value("data", -1) <= 0) return Internal("conmon: {}", line);
  return Status::Ok();
}

Status FloorPod::Runtime(const std::vector<std::string>& arguments) const {
  process::Command command;
  command.program = options_.runtime;
  command.args = {"--root=" + options_.directory + "/runtime"};
  command.args.insert(command.args.end(), arguments.begin(), arguments.end());
  command.env = process::PlainEnvironment();
  const process::Output output = CRISP_TRY(process::Run(Call(), command));
  if (output.exit_code != 0) return Internal("{}: {}", arguments.front(), output.err);
  return Status::Ok();
}

Status FloorPod::Exec(const std::vector<std::string>& command) const {
  std::vector<std::string> arguments = {"exec", id_};
  arguments.insert(arguments.end(), command.begin(), command.end());
  return Runtime(arguments);
}

Status FloorPod::Stop() {
  if (std::exchange(stopped_, true)) return Status::Ok();
  // CNI DEL waits for the kernel, not for the processor: beside the rest, as crisp does it.
  Status network;
  std::thread detach([&] {
    network = Cni("DEL");
    if (!options_.cni_conf.empty()) {
      if (const Status unpinned = os::UnpinNamespace(dir_ + "/net"); network.ok())
        network = unpinned;
    }
  });
  Status first = Runtime({"delete", "--force", id_});
  const auto note = [&](const Status& status) {
    if (first.ok()) first = status;
  };
  note(os::Unmount(dir_ + "/rootfs"));
  note(os::UnpinNamespace(dir_ + "/ipc"));
  note(os::UnpinNamespace(dir_ + "/uts"));
  detach.join();
  note(network);
  return first;
}

}  // namespace crisp::bench
