#include <fmt/format.h>

#include "services/crispctl/convert/common_judges.h"
#include "services/crispctl/convert/crio_judges.h"

namespace crisp::ctl::convert {
namespace {

constexpr std::string_view kHandlers = "crio/runtime/runtimes";

std::string OptionOf(std::string_view name, std::string_view option) {
  return fmt::format("{}/{}/{}", kHandlers, name, option);
}

std::string DefaultRuntime(const Options& all) {
  return all.Text("crio/runtime/default_runtime", "crun");
}

/// Why a handler is left out; empty: it is not.
std::string Refusal(const Options& all, const std::string& name) {
  const std::string type = all.Text(OptionOf(name, "runtime_type"), "oci");
  if (type == "vm") {
    return "crisp runs OCI programs, no containerd shims: make a handler for kata-runtime or runsc";
  }
  if (type == "pod") return "crisp has no conmon-rs: make a handler for the OCI program itself";
  if (!IsHandlerName(name)) {
    return fmt::format("'{}' is no name for a handler (a-z, 0-9, '-', '.')", name);
  }
  return "";
}

/// The program of a handler as CRI-O finds it.
std::string ProgramOf(const Options& all, const std::string& name) {
  std::string owner = name;
  if (all.Bool(OptionOf(name, "inherit_default_runtime"))) owner = DefaultRuntime(all);
  return all.Text(OptionOf(owner, "runtime_path"), "/usr/bin/" + owner);
}

}  // namespace

Judge OfHandler(Judge judge) {
  return [judge = std::move(judge)](const Case& one) {
    if (!Refusal(one.all, one.name).empty()) {
      return NotSupportedHere(fmt::format("the handler {} is left out", one.name));
    }
    return judge(one);
  };
}

Finding CrioDefaultRuntime(const Case& one) {
  const std::string name = DefaultRuntime(one.all);
  const bool known = !one.all.Names(fmt::format("{}/{}/**", kHandlers, name)).empty();
  const bool there = one.all.Find(OptionOf(name, "runtime_path")) != nullptr;
  if ((!known && !there && !IsBuiltInHandler(name)) || !Refusal(one.all, name).empty()) {
    return NotSupportedHere(
        fmt::format("there is no handler {}: crisp's default, runc, counts", name));
  }
  return one.Put("rund.default_runtime", YamlText(name));
}

Finding CrioRuntimeType(const Case& one) {
  const std::string refusal = Refusal(one.all, one.name);
  return refusal.empty() ? NotNeededHere("all handlers are OCI programs")
                         : NotSupportedHere(refusal);
}

Finding CrioRuntimePath(const Case& one) {
  if (const std::string refusal = Refusal(one.all, one.name); !refusal.empty()) {
    return NotSupportedHere(refusal);
  }
  const std::string program = ProgramOf(one.all, one.name);
  std::string changed;
  if (one.option.value.text.empty()) changed = "crisp does not search PATH: see that it is there";
  if (one.all.Bool(OptionOf(one.name, "inherit_default_runtime"))) {
    changed = "is that of the default runtime";
  }
  return one.Put("rund.runtimes.*.path", YamlText(program), std::move(changed));
}

Finding CrioInherit(const Case& one) {
  if (IsOff(one.option.value)) return NotNeededHere("is off, as it is in crisp");
  return {Outcome::kChanged, fmt::format("rund.runtimes.{}.path", one.name),
          "the program is written out; the rest is said for each handler"};
}

Finding CrioMonitorPath(const Case& one) {
  const std::string& path = one.option.value.text;
  if (path.empty()) return NotNeededHere("is empty: crisp's own default counts");
  if (one.name == DefaultRuntime(one.all)) {
    return one.Put("rund.conmon", Program(one.option.value), "holds for all handlers");
  }
  const std::string usual = one.all.Text(OptionOf(DefaultRuntime(one.all), "monitor_path"),
                                         one.all.Text("crio/runtime/conmon"));
  if (path == usual) return NotNeededHere("is the same for all handlers");
  return NotSupportedHere("all handlers have one monitor: rund.conmon");
}

Finding CrioCreateTimeout(const Case& one) {
  if (one.name != DefaultRuntime(one.all)) {
    return NotSupportedHere("crid.create_timeout_seconds holds for all handlers");
  }
  return one.Put("crid.create_timeout_seconds", Number(one.option.value), "holds for all handlers");
}

}  // namespace crisp::ctl::convert
