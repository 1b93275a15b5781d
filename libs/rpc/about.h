#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/work/operations.h"

namespace crisp::rpc {
namespace internal {

/// What our protocols and the CRI call things, each where a message has it; nobody's messages are
/// named here.
template <typename Message>
void AddSubjectsOf(const Message& message, std::vector<std::string>& subjects) {
  const auto add = [&subjects](std::string subject) {
    if (!subject.empty()) subjects.push_back(std::move(subject));
  };
  if constexpr (requires { message.pod_sandbox_id(); }) add(message.pod_sandbox_id());
  if constexpr (requires { message.pod_id(); }) add(message.pod_id());
  if constexpr (requires { message.container_id(); }) add(message.container_id());
  if constexpr (requires { message.owner_id(); }) add(message.owner_id());
  if constexpr (requires { message.metadata().namespace_(); }) {
    add(message.metadata().namespace_() + "/" + message.metadata().name());
  } else if constexpr (requires { message.metadata().name(); }) {
    add(message.metadata().name());
  }
  if constexpr (requires { std::string(message.image()); }) {
    add(message.image());
  } else if constexpr (requires { std::string(message.image().image()); }) {
    add(message.image().image());
  }
  if constexpr (requires { message.config(); }) AddSubjectsOf(message.config(), subjects);
  if constexpr (requires { message.sandbox_config(); }) {
    AddSubjectsOf(message.sandbox_config(), subjects);
  }
}

}  // namespace internal

/// "RunPodSandbox" of a RunPodSandboxRequest; "call" of what is no message.
template <typename Request>
std::string CallName() {
  if constexpr (requires { Request::descriptor()->name(); }) {
    constexpr std::string_view kEnd = "Request";
    std::string name = Request::descriptor()->name();
    if (name.ends_with(kEnd)) name.resize(name.size() - kEnd.size());
    return name;
  } else {
    return "call";
  }
}

/// What an operation says of the call with this request: its name, and the ids, names and images in
/// the request.
template <typename Request>
work::Operation::About AboutCall(const Request& request) {
  work::Operation::About about{.kind = CallName<Request>()};
  internal::AddSubjectsOf(request, about.subjects);
  return about;
}

}  // namespace crisp::rpc
