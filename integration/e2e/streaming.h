#pragma once

#include <string>
#include <vector>

#include "integration/e2e/shared_node.h"
#include "integration/harness/spdy_client.h"
#include "libs/json/json.h"

namespace crisp::harness {

using Runtime = cri::RuntimeService::StubInterface;

/// Which streams a client wants.
struct Streams {
  bool in = false;
  bool out = true;
  bool err = true;
  bool tty = false;
};

inline cri::ExecRequest ExecOf(const std::string& id, const std::vector<std::string>& command,
                               const Streams& streams = {}) {
  cri::ExecRequest request;
  request.set_container_id(id);
  for (const std::string& word : command) request.add_cmd(word);
  request.set_stdin(streams.in);
  request.set_stdout(streams.out);
  request.set_stderr(streams.err && !streams.tty);
  request.set_tty(streams.tty);
  return request;
}

inline std::string ExecUrl(const OnNode& on, const std::string& id,
                           const std::vector<std::string>& command, const Streams& streams = {}) {
  const auto answer = on.cri.Call(&Runtime::Exec, ExecOf(id, command, streams));
  REQUIRE_OK(answer);
  return answer->url();
}

inline std::string AttachUrl(const OnNode& on, const std::string& id, const Streams& streams) {
  cri::AttachRequest request;
  request.set_container_id(id);
  request.set_stdin(streams.in);
  request.set_stdout(streams.out);
  request.set_stderr(streams.err && !streams.tty);
  request.set_tty(streams.tty);
  const auto answer = on.cri.Call(&Runtime::Attach, request);
  REQUIRE_OK(answer);
  return answer->url();
}

inline std::string ForwardUrl(const OnNode& on, const std::string& pod,
                              const std::vector<int>& ports = {}) {
  cri::PortForwardRequest request;
  request.set_pod_sandbox_id(pod);
  for (const int port : ports) request.add_port(port);
  const auto answer = on.cri.Call(&Runtime::PortForward, request);
  REQUIRE_OK(answer);
  return answer->url();
}

/// "0", the exit code, or "" when there is none.
inline std::string ExitCodeIn(const std::string& text) {
  INFO(text);
  const auto status = json::Parse(text);
  REQUIRE(status.ok());
  if (json::GetString(*status, "status").value_or("") == "Success") return "0";
  const auto causes = json::OptArray(*status, "details.causes").value();
  return causes.empty() ? "" : causes[0].value("message", "");
}

}  // namespace crisp::harness
