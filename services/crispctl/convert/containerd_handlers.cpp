#include <fmt/format.h>

#include "services/crispctl/convert/common_judges.h"
#include "services/crispctl/convert/containerd_judges.h"

namespace crisp::ctl::convert {
namespace {

std::string OptionOf(std::string_view name, std::string_view option) {
  return fmt::format("cri/containerd/runtimes/{}/{}", name, option);
}

std::string DefaultRuntime(const Options& all) {
  return all.Text("cri/containerd/default_runtime_name", "runc");
}

/// Why a handler is left out; empty: it is not.
std::string Refusal(const Options& all, const std::string& name) {
  const std::string type = all.Text(OptionOf(name, "runtime_type"), "io.containerd.runc.v2");
  if (!type.starts_with("io.containerd.runc.") && type != "io.containerd.runtime.v1.linux") {
    return fmt::format(
        "crisp runs OCI programs, no containerd shims ({}): make a handler for kata-runtime, runsc "
        "or what else the shim runs",
        type);
  }
  if (!IsHandlerName(name)) {
    return fmt::format("'{}' is no name for a handler (a-z, 0-9, '-', '.')", name);
  }
  return "";
}

}  // namespace

Judge OfRuntime(Judge judge) {
  return [judge = std::move(judge)](const Case& one) {
    if (!Refusal(one.all, one.name).empty()) {
      return NotSupportedHere(fmt::format("the handler {} is left out", one.name));
    }
    return judge(one);
  };
}

Finding ContainerdDefaultRuntime(const Case& one) {
  const std::string name = DefaultRuntime(one.all);
  const bool known = !one.all.Names(OptionOf("*", "**")).empty() &&
                     one.all.Find(OptionOf(name, "options/BinaryName")) != nullptr;
  if ((!known && !IsBuiltInHandler(name)) || !Refusal(one.all, name).empty()) {
    return NotSupportedHere(
        fmt::format("there is no handler {}: crisp's default, runc, counts", name));
  }
  return one.Put("rund.default_runtime", YamlText(name));
}

Finding ContainerdRuntimeType(const Case& one) {
  const std::string refusal = Refusal(one.all, one.name);
  return refusal.empty() ? NotNeededHere("conmon and the OCI program need no shim")
                         : NotSupportedHere(refusal);
}

Finding ContainerdBinary(const Case& one) {
  if (const std::string refusal = Refusal(one.all, one.name); !refusal.empty()) {
    return NotSupportedHere(fmt::format("the handler {} is left out", one.name));
  }
  const std::string& binary = one.option.value.text;
  std::string changed;
  if (binary.find('/') == binary.npos) changed = "crisp does not search PATH: see that it is there";
  return one.Put("rund.runtimes.*.path",
                 Program(binary.empty() ? TomlOf("runc") : one.option.value), std::move(changed));
}

Finding ContainerdSystemdCgroup(const Case& one) {
  if (!Refusal(one.all, one.name).empty()) {
    return NotSupportedHere(fmt::format("the handler {} is left out", one.name));
  }
  const bool systemd = one.option.value.boolean;
  const std::string usual = DefaultRuntime(one.all);
  if (one.name == usual) {
    return one.Put("rund.cgroup_driver", YamlText(systemd ? "systemd" : "cgroupfs"),
                   "holds for all handlers; the kubelet asks which it is");
  }
  if (systemd == one.all.Bool(OptionOf(usual, "options/SystemdCgroup"))) {
    return NotNeededHere("is the same for all handlers");
  }
  return NotSupportedHere(
      fmt::format("rund.cgroup_driver holds for all handlers: that of {} is taken", usual));
}

Finding ContainerdAnnotations(const Case& one) {
  const auto patterns = Texts(one.option.value);
  if (!patterns.ok()) return NotSupportedHere(patterns.status().message());
  Finding last = NotNeededHere("is empty, as it is in crisp");
  for (const std::string& pattern : *patterns) {
    last = one.Append("rund.runtimes.*.allowed_annotations", AnnotationPrefix(pattern));
  }
  return last;
}

Finding ContainerdSandboxer(const Case& one) {
  const std::string& how = one.option.value.text;
  if (how.empty() || how == "podsandbox") return NotNeededHere("pods have no pause container");
  return NotSupportedHere("a pod is made by netd and rund alone");
}

}  // namespace crisp::ctl::convert
