#include "services/rund/core/node.h"

#include <fmt/ranges.h>

#include "libs/json/json.h"
#include "libs/os/files.h"

namespace crisp::rund {
namespace {

namespace cri = runtime::v1;

// Only what is really there: the kubelet sends pods that need it.
cri::RuntimeHandlerFeatures FeaturesOf(const Parts& parts, const RuntimeInfo& info) {
  cri::RuntimeHandlerFeatures features;
  features.set_recursive_read_only_mounts(info.recursive_read_only);
  // Pods with user namespaces have volumes, whose owners have to be mapped too.
  features.set_user_namespaces(parts.userns_support.ok() && info.user_namespaces &&
                               info.idmapped_mounts);
  return features;
}

}  // namespace

std::vector<NodeProblem> NodeProblems(const Parts& parts) {
  std::vector<NodeProblem> problems;
  if (!os::Exists(parts.config.conmon)) {
    problems.push_back({fmt::format("there is no conmon at {}", parts.config.conmon),
                        "install conmon, or set rund.conmon"});
  }
  const auto standard = parts.runtimes.Find("");
  if (!standard.ok()) {
    problems.push_back({standard.status().message(),
                        "install the runtime, or set rund.default_runtime to one that works"});
  }
  return problems;
}

namespace {

NodeProblem StuckProblem(const Parts& parts, const Stops::Stuck& stuck) {
  const ContainerRef container = parts.state.FindContainer(stuck.id);
  std::string name(stuck.id.Short());
  std::int64_t pid = 0;
  if (container) {
    pid = container->init().pid();
    name = fmt::format("{} ({})", container->metadata().name(), stuck.id.Short());
    if (const PodRef pod = parts.state.FindPod(PodId(container->pod_id()))) {
      name += fmt::format(" of pod {}/{}", pod->metadata().namespace_(), pod->metadata().name());
    }
  }
  const auto minutes =
      std::chrono::duration_cast<std::chrono::minutes>(parts.clock.Now() - stuck.since).count();
  return {fmt::format("container {} has outlived SIGKILL for {} min", name, minutes),
          fmt::format("its process waits in the kernel, mostly for a volume whose server is away: "
                      "cat /proc/{}/wchan says where. It is killed again every 30 s; where nothing "
                      "brings the volume back, only a reboot ends it",
                      pid)};
}

}  // namespace

std::vector<NodeProblem> PodProblems(const Parts& parts, const Stops& stops) {
  std::vector<NodeProblem> problems;
  if (const std::size_t count = parts.state.unreadable(); count > 0) {
    problems.push_back(
        {fmt::format("{} records of pods and containers could not be read at the start", count),
         fmt::format("they are set aside in the table unreadable of {}; what ran under them is not "
                     "looked after: the log of the start names them",
                     parts.config.layout.DatabasePath())});
  }
  for (const Stops::Stuck& stuck : stops.stuck()) {
    problems.push_back(StuckProblem(parts, stuck));
  }
  return problems;
}

v1::NodeStatusResponse NodeStatusOf(const Parts& parts) {
  v1::NodeStatusResponse response;
  const auto problems = NodeProblems(parts);
  cri::RuntimeCondition* ready = response.add_conditions();
  ready->set_type("RuntimeReady");
  ready->set_status(problems.empty());
  if (!problems.empty()) {
    ready->set_reason("RuntimeNotReady");
    ready->set_message(problems.front().what);
  }
  // The empty name is the default handler; it sorts first.
  if (const auto standard = parts.runtimes.Find(""); standard.ok()) {
    *response.add_handlers()->mutable_features() = FeaturesOf(parts, (*standard)->info());
  }
  for (const std::string& name : parts.runtimes.Names()) {
    cri::RuntimeHandler* handler = response.add_handlers();
    handler->set_name(name);
    *handler->mutable_features() = FeaturesOf(parts, parts.runtimes.Recorded(name)->info());
  }
  response.mutable_features()->set_supplemental_groups_policy(true);
  response.mutable_features()->set_mount_options(true);
  response.set_cgroup_driver(
      parts.cgroup_driver.kind() == CgroupDriverKind::kSystemd ? cri::SYSTEMD : cri::CGROUPFS);

  nlohmann::json info;
  info["defaultRuntime"] = parts.runtimes.default_name();
  info["conmon"] = parts.config.conmon;
  for (const std::string& name : parts.runtimes.Names()) {
    const OciRuntime* runtime = parts.runtimes.Recorded(name);
    info["runtimes"][name] = {{"path", runtime->info().path},
                              {"version", runtime->info().version},
                              {"root", runtime->root()}};
  }
  info["userNamespaces"] =
      parts.userns_support.ok() ? std::string("available") : parts.userns_support.message();
  for (const Runtimes::Missing& missing : parts.runtimes.missing()) {
    info["unavailableRuntimes"][missing.name] = missing.why.message();
  }
  response.set_info_json(json::Dump(info));
  return response;
}

}  // namespace crisp::rund
