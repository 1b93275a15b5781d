#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/settings/settings.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/hints.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

// The same container, or pod, made again under its name.
bool IsAnotherAttempt(const runtime::v1::Container& a, const runtime::v1::Container& b) {
  return a.pod_sandbox_id() == b.pod_sandbox_id();
}
bool IsAnotherAttempt(const runtime::v1::PodSandbox& a, const runtime::v1::PodSandbox& b) {
  return a.metadata().namespace_() == b.metadata().namespace_() &&
         a.metadata().uid() == b.metadata().uid();
}

/// One of `items` by full id, then by unique prefix, then by name. A name means the last attempt.
template <typename Items>
auto Find(const Items& items, const std::string& text, std::string_view noun,
          std::string_view lister) -> Result<std::decay_t<decltype(*items.begin())>> {
  std::vector<decltype(&*items.begin())> matches;
  for (const auto& item : items) {
    if (item.id() == text) return item;
    if (!text.empty() && item.id().starts_with(text)) matches.push_back(&item);
  }
  if (matches.empty()) {
    for (const auto& item : items) {
      if (item.metadata().name() != text) continue;
      const auto same = std::find_if(matches.begin(), matches.end(), [&item](const auto* match) {
        return IsAnotherAttempt(*match, item);
      });
      if (same == matches.end()) {
        matches.push_back(&item);
      } else if (item.metadata().attempt() > (*same)->metadata().attempt()) {
        *same = &item;
      }
    }
  }
  if (matches.size() == 1) return *matches.front();
  if (matches.empty()) {
    return NotFound("no {} has the id or the name '{}': 'crispctl {}' shows them all", noun, text,
                    lister);
  }
  return InvalidArgument("'{}' means {} {}s, {} and {} among them: give more of the id", text,
                         matches.size(), noun, ShortId(matches[0]->id()),
                         ShortId(matches[1]->id()));
}

}  // namespace

Result<std::unique_ptr<Client>> Connect(const Shared& shared) {
  auto client = std::make_unique<Client>(CRISP_TRY(FindEndpoint(shared.socket, shared.config)));
  CRISP_TRY(client->Reach());
  return client;
}

Result<std::string> SettingsPath(const Shared& shared) {
  if (!shared.config.empty()) return shared.config;
  const std::string socket = NamedSocket(shared.socket);
  if (socket.empty()) return std::string(settings::kDefaultPath);
  // The front serves what each daemon serves on all its sockets.
  const auto info = Client::Info(socket);
  if (!info.ok()) {
    return info.status().While(
        "which settings does the node at {} have? Name the file with --config", socket);
  }
  if (info->config().empty()) {
    return Unavailable("{} at {} does not say which settings file it reads: name it with --config",
                       info->service(), socket);
  }
  return info->config();
}

int Tell(const Status& status) {
  Complain(status.message());
  if (const std::string_view hint = HintFor(status); !hint.empty()) {
    Remark(fmt::format("  {}\n", hint));
  }
  return kFailed;
}

int TellNotReached(const Status& status) {
  Complain(status.message());  // which says itself what to do
  return status.code() == Code::kUnavailable || status.code() == Code::kPermissionDenied
             ? kNotReached
             : kFailed;
}

void WithClient(Shared& shared, const std::function<Result<int>(Client&)>& verb, int failed) {
  auto client = Connect(shared);
  if (!client.ok()) {
    const int code = TellNotReached(client.status());
    shared.exit_code = failed == kFailed ? code : failed;
    return;
  }
  const auto done = verb(**client);
  if (done.ok()) {
    shared.exit_code = *done;
  } else {
    const int code = Tell(done.status());
    shared.exit_code = failed == kFailed ? code : failed;
  }
}

int ForEach(const Shared& shared, const std::vector<std::string>& names,
            const std::function<Status(const std::string&)>& verb) {
  int code = kDone;
  nlohmann::json did = nlohmann::json::array();
  for (const std::string& name : names) {
    if (Status done = verb(name); !done.ok()) {
      code = Tell(done);
    } else if (shared.json()) {
      did.push_back(name);
    } else {
      Print(name);
    }
  }
  if (shared.json()) Print(did.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  return code;
}

Result<runtime::v1::Container> FindContainer(Client& client, const std::string& text) {
  const auto list = CRISP_TRY(client.ListContainers());
  return Find(list.containers(), text, "container", "ps -a");
}

Result<runtime::v1::PodSandbox> FindPod(Client& client, const std::string& text) {
  const auto list = CRISP_TRY(client.ListPods());
  return Find(list.items(), text, "pod", "pods");
}

std::string RunLogRoot(const Endpoint& endpoint) { return endpoint.run_root + "/crispctl"; }

void ForgetRunLogs(const Endpoint& endpoint, const runtime::v1::PodSandbox& pod) {
  if (pod.metadata().namespace_() != kRunNamespace) return;
  const std::string& uid = pod.metadata().uid();
  if (uid.empty() || uid.find_first_not_of("0123456789abcdef") != std::string::npos) return;
  if (Status gone = os::RemoveTree(RunLogRoot(endpoint) + "/" + uid); !gone.ok()) {
    Complain("the logs of the pod stay: " + gone.message());
  }
}

}  // namespace crisp::ctl
