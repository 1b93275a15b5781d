#include "services/rund/spec/cdi_edits.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <initializer_list>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "services/rund/spec/hooks.h"
#include "services/rund/spec/text.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

Status CheckKeys(const json& object, std::initializer_list<std::string_view> known) {
  if (!object.is_object()) return InvalidArgument("not an object");
  for (const auto& [key, unused] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      return InvalidArgument("\"{}\" is not supported", key);
    }
  }
  return Status::Ok();
}

Status CheckId(const json& object, const char* key) {
  if (!object.contains(key)) return Status::Ok();
  const std::int64_t id = CRISP_TRY(crisp::json::GetInt(object, key));
  if (id < 0 || id > std::int64_t{0xFFFFFFFF}) return InvalidArgument("{} is {}", key, id);
  return Status::Ok();
}

Status CheckNode(const json& node) {
  CRISP_TRY(CheckKeys(node, {"path", "hostPath", "type", "major", "minor", "fileMode",
                             "permissions", "uid", "gid"}));
  if (!CRISP_TRY(crisp::json::GetString(node, "path")).starts_with('/')) {
    return InvalidArgument("path is not absolute");
  }
  CRISP_TRY(crisp::json::OptString(node, "hostPath"));
  for (const char* key : {"major", "minor", "fileMode", "uid", "gid"}) {
    CRISP_TRY(CheckId(node, key));
  }
  const std::string type = CRISP_TRY(crisp::json::OptString(node, "type"));
  if (!type.empty() && type != "b" && type != "c" && type != "u" && type != "p") {
    return InvalidArgument("type \"{}\" is none of b, c, u, p", type);
  }
  const std::string access = CRISP_TRY(crisp::json::OptString(node, "permissions"));
  if (access.find_first_not_of("rwm") != std::string::npos && access != "none") {
    return InvalidArgument("permissions \"{}\" are not of r, w, m", access);
  }
  return Status::Ok();
}

Status CheckRdt(const json& rdt) {
  CRISP_TRY(CheckKeys(rdt, {"closID", "l3CacheSchema", "memBwSchema", "enableCMT", "enableMBM"}));
  for (const char* key : {"l3CacheSchema", "memBwSchema"}) {
    CRISP_TRY(crisp::json::OptString(rdt, key));
  }
  for (const char* key : {"enableCMT", "enableMBM"}) CRISP_TRY(crisp::json::OptBool(rdt, key));
  // A directory of resctrl.
  const std::string group = CRISP_TRY(crisp::json::OptString(rdt, "closID"));
  if (group == "." || group == ".." || group.find('/') != group.npos) {
    return InvalidArgument("closID \"{}\" is not a name", group);
  }
  return Status::Ok();
}

Status CheckMount(const json& mount) {
  CRISP_TRY(CheckKeys(mount, {"hostPath", "containerPath", "options", "type"}));
  CRISP_TRY(crisp::json::GetString(mount, "hostPath"));
  if (!CRISP_TRY(crisp::json::GetString(mount, "containerPath")).starts_with('/')) {
    return InvalidArgument("containerPath is not absolute");
  }
  CRISP_TRY(crisp::json::OptStrings(mount, "options"));
  CRISP_TRY(crisp::json::OptString(mount, "type"));
  return Status::Ok();
}

Status CheckHook(const json& hook) {
  CRISP_TRY(CheckKeys(hook, {"hookName", "path", "args", "env", "timeout"}));
  const std::string stage = CRISP_TRY(crisp::json::GetString(hook, "hookName"));
  if (std::find(kHookStages.begin(), kHookStages.end(), stage) == kHookStages.end()) {
    return InvalidArgument("unknown hookName \"{}\"", stage);
  }
  if (!CRISP_TRY(crisp::json::GetString(hook, "path")).starts_with('/')) {
    return InvalidArgument("path is not absolute");
  }
  CRISP_TRY(crisp::json::OptStrings(hook, "args"));
  CRISP_TRY(crisp::json::OptStrings(hook, "env"));
  CRISP_TRY(crisp::json::OptInt(hook, "timeout"));
  return Status::Ok();
}

void SetEnv(json& env, const std::string& line) {
  const std::string name = line.substr(0, line.find('=') + 1);
  for (json& known : env) {
    if (known.get_ref<const std::string&>().starts_with(name)) {
      known = line;
      return;
    }
  }
  env.push_back(line);
}

/// The node with all that the OCI spec wants of it.
Result<json> Complete(const json& edit, const ResolvedUser& user) {
  json node = {{"path", edit["path"]}};
  for (const char* key : {"type", "major", "minor", "fileMode", "uid", "gid"}) {
    if (edit.contains(key)) node[key] = edit[key];
  }
  const bool fifo = node.value("type", "") == "p";
  if (!node.contains("type") || (!fifo && (!node.contains("major") || !node.contains("minor")))) {
    const std::string host = edit.value("hostPath", edit["path"].get<std::string>());
    struct stat info {};
    if (stat(host.c_str(), &info) != 0) return Status::Errno(errno, "device {}", host);
    if (!S_ISCHR(info.st_mode) && !S_ISBLK(info.st_mode)) {
      return InvalidArgument("{} is not a device", host);
    }
    node["type"] = S_ISBLK(info.st_mode) ? "b" : "c";
    node["major"] = major(info.st_rdev);
    node["minor"] = minor(info.st_rdev);
    if (!node.contains("fileMode")) node["fileMode"] = info.st_mode & 07777;
  }
  if (!node.contains("uid") && user.uid > 0) node["uid"] = user.uid;
  if (!node.contains("gid") && user.gid > 0) node["gid"] = user.gid;
  return node;
}

Status AddNode(const json& edit, const ResolvedUser& user, bool privileged, json& linux_spec) {
  json node = CRISP_TRY(Complete(edit, user));
  json& nodes = linux_spec["devices"];
  if (nodes.is_null()) nodes = json::array();
  nodes.erase(std::remove_if(nodes.begin(), nodes.end(),
                             [&node](const json& known) { return known["path"] == node["path"]; }),
              nodes.end());
  const std::string type = node["type"];
  std::string access = edit.value("permissions", "rwm");
  if (access.empty()) access = "rwm";
  if (!privileged && (type == "b" || type == "c") && access != "none") {
    linux_spec["resources"]["devices"].push_back({{"allow", true},
                                                  {"type", type},
                                                  {"major", node["major"]},
                                                  {"minor", node["minor"]},
                                                  {"access", access}});
  }
  nodes.push_back(std::move(node));
  return Status::Ok();
}

void AddMount(const json& edit, json& mounts) {
  const std::string destination = CleanPath(edit["containerPath"].get_ref<const std::string&>());
  json options = edit.value("options", json::array());
  std::string type = edit.value("type", "");
  if (type.empty() || type == "bind") {
    type = "bind";
    const bool bind = std::any_of(options.begin(), options.end(), [](const json& option) {
      return option == "bind" || option == "rbind";
    });
    if (!bind) options.insert(options.begin(), "rbind");
  }
  mounts.erase(
      std::remove_if(mounts.begin(), mounts.end(),
                     [&destination](const json& m) { return m["destination"] == destination; }),
      mounts.end());
  mounts.push_back({{"destination", destination},
                    {"type", type},
                    {"source", edit["hostPath"]},
                    {"options", std::move(options)}});
  std::stable_sort(mounts.begin(), mounts.end(), [](const json& a, const json& b) {
    return PathDepth(a["destination"].get_ref<const std::string&>()) <
           PathDepth(b["destination"].get_ref<const std::string&>());
  });
}

}  // namespace

Status CheckCdiEdits(const json& edits) {
  CRISP_TRY(
      CheckKeys(edits, {"env", "deviceNodes", "mounts", "hooks", "additionalGids", "intelRdt"}));
  if (edits.contains("intelRdt")) CRISP_TRY(CheckRdt(edits["intelRdt"]).While("intelRdt"));
  for (const std::string& line : CRISP_TRY(crisp::json::OptStrings(edits, "env"))) {
    if (line.find('=') == std::string::npos || line.starts_with('=')) {
      return InvalidArgument("env: \"{}\" is not NAME=value", line);
    }
  }
  for (const json& node : CRISP_TRY(crisp::json::OptArray(edits, "deviceNodes"))) {
    CRISP_TRY(CheckNode(node).While("deviceNodes"));
  }
  for (const json& mount : CRISP_TRY(crisp::json::OptArray(edits, "mounts"))) {
    CRISP_TRY(CheckMount(mount).While("mounts"));
  }
  for (const json& hook : CRISP_TRY(crisp::json::OptArray(edits, "hooks"))) {
    CRISP_TRY(CheckHook(hook).While("hooks"));
  }
  for (const json& gid : CRISP_TRY(crisp::json::OptArray(edits, "additionalGids"))) {
    if (!gid.is_number_unsigned() || gid.get<std::uint64_t>() >= 0xFFFFFFFF) {
      return InvalidArgument("additionalGids holds something else than group ids");
    }
  }
  return Status::Ok();
}

Status ApplyCdiEdits(const json& edits, const ResolvedUser& user, bool privileged, json& spec) {
  for (const json& line : edits.value("env", json::array())) {
    SetEnv(spec["process"]["env"], line.get<std::string>());
  }
  for (const json& node : edits.value("deviceNodes", json::array())) {
    CRISP_TRY(AddNode(node, user, privileged, spec["linux"]));
  }
  for (const json& mount : edits.value("mounts", json::array())) AddMount(mount, spec["mounts"]);
  for (const json& edit : edits.value("hooks", json::array())) {
    json hook = edit;
    hook.erase("hookName");
    spec["hooks"][edit["hookName"].get<std::string>()].push_back(std::move(hook));
  }
  // The runtime says what it lacks, if it does: RDT is the processor's, resctrl the node's.
  if (edits.contains("intelRdt")) spec["linux"]["intelRdt"] = edits["intelRdt"];
  json& groups = spec["process"]["user"]["additionalGids"];
  for (const json& gid : edits.value("additionalGids", json::array())) {
    if (gid != 0 && std::find(groups.begin(), groups.end(), gid) == groups.end()) {
      groups.push_back(gid);
    }
  }
  return Status::Ok();
}

}  // namespace crisp::rund
