#include "services/rund/spec/builder.h"

#include "libs/base/try.h"
#include "libs/os/beneath.h"
#include "libs/os/files.h"
#include "services/rund/spec/annotations.h"
#include "services/rund/spec/apparmor.h"
#include "services/rund/spec/base_spec.h"
#include "services/rund/spec/blockio.h"
#include "services/rund/spec/capabilities.h"
#include "services/rund/spec/cdi.h"
#include "services/rund/spec/devices.h"
#include "services/rund/spec/hooks.h"
#include "services/rund/spec/image_config.h"
#include "services/rund/spec/mounts.h"
#include "services/rund/spec/namespaces.h"
#include "services/rund/spec/opt_ins.h"
#include "services/rund/spec/process.h"
#include "services/rund/spec/rdt.h"
#include "services/rund/spec/security.h"
#include "services/rund/spec/text.h"
#include "services/rund/spec/user.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

// Debian 12's crun refuses a version that it does not know; both runtimes know this one.
constexpr const char* kOciVersion = "1.0.2";

/// Who owns on the host what belongs to this user inside.
Result<ResolvedUser> OwnerOnHost(ResolvedUser user, const std::optional<UserNamespace>& userns) {
  if (!userns) return user;
  const auto uid = userns->uids.ToOutside(user.uid);
  const auto gid = userns->gids.ToOutside(user.gid);
  if (!uid || !gid) {
    return InvalidArgument("user {}:{} has no place in the pod's user namespace of {} ids",
                           user.uid, user.gid, userns->uids.count);
  }
  user.uid = *uid;
  user.gid = *gid;
  return user;
}

Result<bool> Privileged(const SpecInputs& inputs) {
  if (!inputs.config.linux().security_context().privileged()) return false;
  if (!inputs.sandbox.linux().security_context().privileged()) {
    return InvalidArgument(
        "linux.security_context.privileged: the pod's sandbox was not made for privileged "
        "containers");
  }
  return true;
}

void Append(std::vector<std::string>& notes, std::vector<std::string> more) {
  notes.insert(notes.end(), std::make_move_iterator(more.begin()),
               std::make_move_iterator(more.end()));
}

json Annotations(const SpecInputs& inputs) {
  const auto& pod = inputs.sandbox.metadata();
  json annotations = json::object();
  // The container's win over the pod's, ours over both.
  for (const auto* given : {&inputs.sandbox.annotations(), &inputs.config.annotations()}) {
    for (const auto& [name, value] : *given) {
      if (AllowsAnnotation(inputs.runtime.allowed_annotations, name)) annotations[name] = value;
    }
  }
  annotations.update({{"io.crisp.container.id", inputs.id.str()},
                      {"io.crisp.container.name", inputs.config.metadata().name()},
                      {"io.crisp.image", inputs.image.image_id()},
                      {"io.crisp.pod.id", inputs.pod.str()},
                      {"io.crisp.pod.name", pod.name()},
                      {"io.crisp.pod.namespace", pod.namespace_()},
                      {"io.crisp.pod.uid", pod.uid()}});
  return annotations;
}

Result<json> Process(const SpecInputs& inputs, const SpecDefaults& defaults,
                     const ImageConfig& image, const ResolvedUser& user,
                     const CapabilitySets& capabilities, const std::string& cwd, bool privileged,
                     std::vector<std::string>& notes) {
  const auto& linux_config = inputs.config.linux();
  const auto& security = linux_config.security_context();
  json process = {
      {"terminal", inputs.config.tty()},
      {"user", {{"uid", user.uid}, {"gid", user.gid}, {"additionalGids", user.groups}}},
      {"args", CRISP_TRY(BuildArgs(inputs.config, image))},
      {"env", CRISP_TRY(BuildEnv(inputs.config, image, inputs.pod_files.hostname, user.home,
                                 defaults.env))},
      {"cwd", cwd},
      {"capabilities", capabilities.ToJson()},
      {"noNewPrivileges", security.no_new_privs()},
      {"oomScoreAdj", OomScoreAdj(linux_config.resources().oom_score_adj(), defaults.host, notes)}};
  if (json rlimits = CRISP_TRY(BuildRlimits(defaults, notes)); !rlimits.empty()) {
    process["rlimits"] = std::move(rlimits);
  }
  if (std::string profile = CRISP_TRY(AppArmorProfile(security, privileged, defaults, notes));
      !profile.empty()) {
    process["apparmorProfile"] = std::move(profile);
  }
  return process;
}

/// The CRI's devices, the annotations', the node's, and with privileged the host's.
Status AddDevices(const SpecInputs& inputs, const SpecDefaults& defaults, const OptIns& opt_ins,
                  bool privileged, json& linux_spec) {
  google::protobuf::RepeatedPtrField<runtime::v1::Device> asked(defaults.devices.begin(),
                                                                defaults.devices.end());
  asked.Add(opt_ins.devices.begin(), opt_ins.devices.end());
  asked.MergeFrom(inputs.config.devices());
  const auto& security = inputs.config.linux().security_context();
  DeviceOwner owner;
  if (defaults.device_ownership && !privileged) {
    if (security.has_run_as_user()) {
      owner.uid = static_cast<std::uint32_t>(security.run_as_user().value());
    }
    if (security.has_run_as_group()) {
      owner.gid = static_cast<std::uint32_t>(security.run_as_group().value());
    }
  }
  BuiltDevices devices =
      CRISP_TRY(BuildDevices(asked, privileged && !inputs.runtime.privileged_without_host_devices,
                             defaults.host.dev_root, owner));
  linux_spec["resources"]["devices"] = std::move(devices.rules);
  if (!devices.nodes.empty()) linux_spec["devices"] = std::move(devices.nodes);
  return Status::Ok();
}

/// With those files of the annotations that the CRI says nothing of.
runtime::v1::LinuxContainerResources WithUnified(runtime::v1::LinuxContainerResources resources,
                                                 const OptIns& opt_ins) {
  for (const auto& [file, value] : opt_ins.unified) {
    resources.mutable_unified()->insert({file, value});
  }
  return resources;
}

void AddLabels(const SelinuxLabels& labels, json& spec) {
  if (!labels.process.empty()) spec["process"]["selinuxLabel"] = labels.process;
  if (!labels.mount.empty()) spec["linux"]["mountLabel"] = labels.mount;
}

/// What the node adds to a spec that is complete: CDI devices, the handler's base, hooks.
Status AddNodesOwn(const SpecInputs& inputs, const SpecDefaults& defaults, const ResolvedUser& user,
                   bool privileged, json& spec) {
  const std::vector<std::string> cdi_devices = CRISP_TRY(CdiDevicesOf(inputs.config));
  if (!cdi_devices.empty()) {
    static const CdiDirs kNone({});
    const CdiDirs& dirs = defaults.cdi != nullptr ? *defaults.cdi : kNone;
    CRISP_TRY(dirs.Apply(cdi_devices, user, privileged, spec));
  }
  ApplyBaseSpec(inputs.runtime.base_spec, privileged, spec);
  if (defaults.hooks == nullptr) return Status::Ok();
  std::map<std::string, std::string> annotations(inputs.sandbox.annotations().begin(),
                                                 inputs.sandbox.annotations().end());
  for (const auto& [key, value] : inputs.config.annotations()) annotations[key] = value;
  const HookSubject subject{.annotations = annotations,
                            .command = spec["process"]["args"][0].get<std::string>(),
                            .bind_mounts = inputs.config.mounts_size() > 0};
  return defaults.hooks->Apply(subject, spec);
}

Result<BuiltSpec> Build(const CallContext& cc, const SpecInputs& inputs,
                        const SpecDefaults& defaults) {
  const auto& linux_config = inputs.config.linux();
  const auto& security = linux_config.security_context();
  const auto& pod_files = inputs.pod_files;
  BuiltSpec built;

  const bool privileged = CRISP_TRY(Privileged(inputs));
  const SelinuxLabels& labels = inputs.labels;
  if (!defaults.selinux.on() && !IsEmpty(SelinuxOptionsOf(inputs.config, inputs.sandbox))) {
    built.notes.emplace_back("SELinux options are passed over: it is not enabled on this node");
  }
  const OptIns opt_ins =
      CRISP_TRY(OptInsOf(inputs.config, inputs.sandbox, inputs.runtime, defaults));
  Append(built.notes, opt_ins.notes);
  const ImageConfig image = CRISP_TRY(ParseImageConfig(inputs.image.config_json()));
  const os::Beneath rootfs =
      CRISP_TRY(os::Beneath::Open(inputs.rootfs, os::Scope::kInRoot).While("the rootfs"));
  const ResolvedUser user = CRISP_TRY(ResolveUser(rootfs, security, image.user));
  CapabilitySets capabilities =
      CRISP_TRY(BuildCapabilities(defaults.capabilities, security.capabilities(), privileged,
                                  user.uid == 0, defaults.host.bounding_capabilities));
  const ResolvedUser owner = CRISP_TRY(OwnerOnHost(user, pod_files.userns));
  Append(built.notes, std::move(capabilities.notes));
  built.stop_signal = CRISP_TRY(StopSignal(inputs.config, image, built.notes));

  json& spec = built.spec;
  spec = {{"ociVersion", kOciVersion},
          {"root", {{"path", inputs.rootfs}, {"readonly", security.readonly_rootfs()}}},
          {"annotations", Annotations(inputs)},
          {"linux", json::object()}};
  const std::string cwd = WorkingDir(inputs.config, image);
  spec["process"] =
      CRISP_TRY(Process(inputs, defaults, image, user, capabilities, cwd, privileged, built.notes));

  if (const auto umask = opt_ins.umask ? opt_ins.umask : defaults.umask) {
    spec["process"]["user"]["umask"] = *umask;
  }

  json& linux_spec = spec["linux"];
  linux_spec["cgroupsPath"] = inputs.cgroup_path;
  linux_spec["namespaces"] = CRISP_TRY(BuildNamespaces(inputs, privileged, defaults.host));
  if (pod_files.userns) {
    linux_spec["uidMappings"] = MappingOf(pod_files.userns->uids);
    linux_spec["gidMappings"] = MappingOf(pod_files.userns->gids);
  }
  const auto sysctls =
      CRISP_TRY(BuildSysctls(inputs.sandbox.linux().sysctls(), pod_files.netns_path.empty(),
                             pod_files.ipcns_path.empty(), pod_files.utsns_path.empty()));
  if (!sysctls.empty()) linux_spec["sysctl"] = sysctls;
  linux_spec["resources"] =
      CRISP_TRY(BuildResources(WithUnified(linux_config.resources(), opt_ins), defaults.host));
  if (json blockio = CRISP_TRY(BuildBlockio(inputs.config, inputs.sandbox, defaults, built.notes));
      !blockio.empty()) {
    linux_spec["resources"]["blockIO"] = std::move(blockio);
  }
  CRISP_TRY(AddDevices(inputs, defaults, opt_ins, privileged, linux_spec));
  if (json rdt = CRISP_TRY(BuildRdt(inputs.config, inputs.sandbox, defaults.host));
      !rdt.is_null()) {
    linux_spec["intelRdt"] = std::move(rdt);
  }
  if (!privileged) {
    if (security.masked_paths_size() > 0) {
      linux_spec["maskedPaths"] =
          std::vector<std::string>(security.masked_paths().begin(), security.masked_paths().end());
    }
    if (security.readonly_paths_size() > 0) {
      linux_spec["readonlyPaths"] = std::vector<std::string>(security.readonly_paths().begin(),
                                                             security.readonly_paths().end());
    }
  }
  json seccomp = CRISP_TRY(BuildSeccomp(security, capabilities, defaults, privileged));
  CRISP_TRY(PlaceSeccomp(std::move(seccomp), inputs.runtime, defaults, spec));

  // Last, since these two leave traces on disk.
  BuiltMounts mounts = CRISP_TRY(BuildMounts(
      cc, inputs, image, rootfs, defaults,
      {.sys = privileged, .cgroups = privileged || opt_ins.writable_cgroups}, labels.mount));
  if (!mounts.rootfs_propagation.empty()) {
    linux_spec["rootfsPropagation"] = std::move(mounts.rootfs_propagation);
  }
  const bool on_mount =
      std::any_of(mounts.mounts.begin(), mounts.mounts.end(), [&cwd](const json& mount) {
        return os::IsAtOrBelow(cwd, mount["destination"].get_ref<const std::string&>());
      });
  spec["mounts"] = std::move(mounts.mounts);
  built.host_mounts = std::move(mounts.host_mounts);
  // Below a mount the runtime makes what is missing, after it has mounted.
  if (!on_mount) CRISP_TRY(MakeWorkingDir(rootfs, cwd, owner));

  AddLabels(labels, spec);
  CRISP_TRY(AddNodesOwn(inputs, defaults, user, privileged, spec));

  built.user.set_uid(user.uid);
  built.user.set_gid(user.gid);
  for (const std::uint32_t gid : user.groups) built.user.add_supplemental_groups(gid);
  return built;
}

}  // namespace

Result<BuiltSpec> BuildSpec(const CallContext& cc, const SpecInputs& inputs,
                            const SpecDefaults& defaults) {
  auto built = Build(cc, inputs, defaults);
  if (built.code() != Code::kNotFound) return built;
  return Status(Code::kFailedPrecondition, built.status().message());
}

}  // namespace crisp::rund
