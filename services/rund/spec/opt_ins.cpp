#include "services/rund/spec/opt_ins.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "libs/base/quantity.h"
#include "libs/base/try.h"
#include "libs/os/limit_names.h"
#include "services/rund/spec/annotations.h"
#include "services/rund/spec/devices.h"
#include "services/rund/spec/text.h"

namespace crisp::rund {
namespace {

namespace cri = runtime::v1;

/// An annotation by its present and its former name.
struct Name {
  std::string_view now;
  std::string_view former;
};
constexpr Name kUmask = {"umask.crio.io", "io.kubernetes.cri-o.umask"};
constexpr Name kShmSize = {"shm-size.crio.io", "io.kubernetes.cri-o.ShmSize"};
constexpr Name kDevices = {"devices.crio.io", "io.kubernetes.cri-o.Devices"};
constexpr Name kWritableCgroups = {"cgroup2-mount-hierarchy-rw.crio.io",
                                   "io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw"};
constexpr Name kUnified = {"unified-cgroup.crio.io", "io.kubernetes.cri-o.UnifiedCgroup"};
/// Always so here: nothing is labelled again whose top has the label.
constexpr Name kSkipLabel = {"try-skip-volume-selinux-label.crio.io",
                             "io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel"};
constexpr std::array kKnown = {kUmask, kShmSize, kDevices, kWritableCgroups, kUnified, kSkipLabel};

bool Is(std::string_view annotation, const Name& name) {
  for (const std::string_view known : {name.now, name.former}) {
    if (!annotation.starts_with(known)) continue;
    const std::string_view rest = annotation.substr(known.size());
    if (rest.empty() || rest.front() == '/' || rest.front() == '.') return true;
  }
  return false;
}

bool IsOfCrio(std::string_view annotation) {
  const std::string_view domain = annotation.substr(0, annotation.find('/'));
  return domain.ends_with(".crio.io") || domain.ends_with(".cri-o.io") ||
         annotation.starts_with("io.kubernetes.cri-o.");
}

struct Asked {
  std::string name;
  std::string value;
};

/// The annotations of a container and its pod that the handler allows.
class Annotations {
 public:
  Annotations(const cri::ContainerConfig* config, const cri::PodSandboxConfig& sandbox,
              const RuntimeInfo& runtime, std::vector<std::string>& notes)
      : runtime_(runtime), notes_(notes) {
    for (const auto& [name, value] : sandbox.annotations()) values_[name] = value;
    if (config == nullptr) return;
    for (const auto& [name, value] : config->annotations()) values_[name] = value;
  }

  std::optional<Asked> Find(const Name& name) {
    for (const std::string_view one : {name.now, name.former}) {
      if (auto asked = Find(std::string(one))) return asked;
    }
    return std::nullopt;
  }
  /// One that ends in the container's name.
  std::optional<Asked> FindFor(const Name& name, const std::string& container) {
    for (const std::string_view one : {name.now, name.former}) {
      for (const char* separator : {"/", "."}) {
        if (auto asked = Find(std::string(one) + separator + container)) return asked;
      }
    }
    return std::nullopt;
  }
  /// What means something to CRI-O and nothing here.
  void NoteUnknown() {
    for (const auto& [name, value] : values_) {
      const bool known = std::any_of(kKnown.begin(), kKnown.end(),
                                     [&name = name](const Name& one) { return Is(name, one); });
      if (IsOfCrio(name) && !known) {
        notes_.push_back(fmt::format("the annotation {} means nothing to crisp", name));
      }
    }
  }

 private:
  std::optional<Asked> Find(const std::string& name) {
    const auto found = values_.find(name);
    if (found == values_.end()) return std::nullopt;
    if (AllowsAnnotation(runtime_.allowed_annotations, name)) return Asked{name, found->second};
    notes_.push_back(
        fmt::format("the annotation {} counts for nothing: it is not among the "
                    "allowed_annotations of runtime handler \"{}\"",
                    name, runtime_.name));
    return std::nullopt;
  }

  std::map<std::string, std::string> values_;
  const RuntimeInfo& runtime_;
  std::vector<std::string>& notes_;
};

Result<bool> ParseFlag(const Asked& asked) {
  if (asked.value == "true") return true;
  if (asked.value == "false") return false;
  return InvalidArgument("annotation {}: '{}' is neither true nor false", asked.name, asked.value);
}

Result<bool> WritableCgroups(const Asked& asked, const SpecDefaults& defaults) {
  const bool wanted = CRISP_TRY(ParseFlag(asked));
  if (!wanted || defaults.host.cgroup_v2) return wanted;
  return InvalidArgument(
      "annotation {}: this node has cgroup v1 controllers, where a container would change the "
      "node's own cgroups",
      asked.name);
}

/// "/dev/a:/dev/b:rw,/dev/c"
Result<std::vector<cri::Device>> ParseDevices(const Asked& asked, const SpecDefaults& defaults) {
  std::vector<cri::Device> devices;
  for (const std::string_view text : Split(asked.value, ',')) {
    cri::Device device = ParseDevice(text);
    const std::string path = CleanPath(device.host_path());
    const auto& allowed = defaults.annotation_devices;
    if (std::find(allowed.begin(), allowed.end(), path) == allowed.end()) {
      return InvalidArgument("annotation {}: rund.allowed_devices has no {}", asked.name,
                             device.host_path());
    }
    // The path that was checked: on disk, with links, ".." may lead elsewhere.
    device.set_host_path(path);
    devices.push_back(std::move(device));
  }
  return devices;
}

/// "memory.high=1G;pids.max=10"
Result<std::map<std::string, std::string>> ParseUnified(const Asked& asked) {
  std::map<std::string, std::string> files;
  for (const std::string_view text : Split(asked.value, ';')) {
    const std::size_t equals = text.find('=');
    if (equals == 0 || equals == std::string_view::npos) {
      return InvalidArgument("annotation {}: '{}' is not file=value", asked.name, text);
    }
    files[std::string(text.substr(0, equals))] = text.substr(equals + 1);
  }
  return files;
}

}  // namespace

Result<OptIns> OptInsOf(const cri::ContainerConfig& config, const cri::PodSandboxConfig& sandbox,
                        const RuntimeInfo& runtime, const SpecDefaults& defaults) {
  OptIns opt_ins;
  Annotations annotations(&config, sandbox, runtime, opt_ins.notes);
  if (const auto asked = annotations.Find(kUmask))
    opt_ins.umask = CRISP_TRY(os::ParseUmask(asked->value).While("annotation {}", asked->name));
  if (const auto asked = annotations.Find(kWritableCgroups)) {
    opt_ins.writable_cgroups = CRISP_TRY(WritableCgroups(*asked, defaults));
  }
  if (const auto asked = annotations.Find(kDevices)) {
    opt_ins.devices = CRISP_TRY(ParseDevices(*asked, defaults));
  }
  if (const auto asked = annotations.FindFor(kUnified, config.metadata().name())) {
    opt_ins.unified = CRISP_TRY(ParseUnified(*asked));
  }
  annotations.NoteUnknown();
  return opt_ins;
}

Result<Bytes> ShmSizeOf(const cri::PodSandboxConfig& sandbox, const RuntimeInfo& runtime,
                        std::vector<std::string>& notes) {
  constexpr Bytes kUsual = MiB(64);
  const auto asked = Annotations(nullptr, sandbox, runtime, notes).Find(kShmSize);
  if (!asked) return kUsual;
  const std::uint64_t size =
      CRISP_TRY(ParseQuantity(asked->value).While("annotation {}", asked->name));
  // The kernel takes zero for no limit at all.
  if (size == 0) return InvalidArgument("annotation {}: it cannot be empty", asked->name);
  if (sandbox.linux().security_context().namespace_options().ipc() == cri::NODE) {
    return InvalidArgument("annotation {}: the pod has the host's /dev/shm", asked->name);
  }
  return Bytes(size);
}

}  // namespace crisp::rund
