#include "services/rund/streaming/session.h"

#include <array>
#include <string_view>
#include <utility>

#include "libs/base/try.h"
#include "libs/json/json.h"

namespace crisp::rund::streaming {
namespace {

constexpr std::string_view kPortForward = "portforward.k8s.io";
constexpr std::string_view kTunnel = "SPDY/3.1+portforward.k8s.io";

bool Knows(const Request& request, bool websocket, const std::string& name) {
  const bool forwards = std::holds_alternative<runtime::v1::PortForwardRequest>(request);
  if (websocket) {
    return (forwards && name == kTunnel) || ParseChannelProtocol(name).has_value();
  }
  if (forwards) return name == kPortForward;
  // The first one has no number in its name.
  const auto protocol = ParseChannelProtocol(name);
  return protocol && !protocol->base64 && protocol->version <= 4;
}

Result<std::string> FirstKnown(const Request& request, bool websocket,
                               const std::vector<std::string>& offered) {
  std::string all;
  for (const std::string& name : offered) {
    if (Knows(request, websocket, name)) return name;
    all += (all.empty() ? "" : ", ") + name;
  }
  return InvalidArgument("none of these protocols is known here: {}", all.substr(0, 500));
}

/// A port-forward has two channels for each port.
Status CheckChannels(const Request& request, const Agreed& agreed) {
  const auto* forward = std::get_if<runtime::v1::PortForwardRequest>(&request);
  const auto protocol = ParseChannelProtocol(agreed.name);
  if (forward == nullptr || !agreed.websocket || !protocol) return Status::Ok();
  const std::size_t most = MaxChannels(*protocol) / 2;
  const auto ports = static_cast<std::size_t>(forward->port_size());
  if (ports <= most) return Status::Ok();
  return InvalidArgument("port: {} of them, and there are channels for {}", ports, most);
}

}  // namespace

Result<Agreed> Agree(const Request& request, bool websocket,
                     const std::vector<std::string>& offered) {
  Agreed agreed{"", websocket};
  if (!offered.empty()) agreed.name = CRISP_TRY(FirstKnown(request, websocket, offered));
  CRISP_TRY(CheckChannels(request, agreed));
  return agreed;
}

SessionPtr MakeSession(Env& env, const Request& request, const Agreed& agreed,
                       std::shared_ptr<Wire> wire) {
  if (const auto* forward = std::get_if<runtime::v1::PortForwardRequest>(&request)) {
    return MakePortForwardSession(env, *forward, agreed, std::move(wire));
  }
  return MakeRemoteSession(env, request, agreed, std::move(wire));
}

std::string ErrorStreamText(const Outcome& outcome, int version) {
  const bool good = outcome.status.ok() && outcome.exit_code == 0;
  if (version < 4) {
    if (good) return "";
    if (!outcome.status.ok()) return outcome.status.message();
    return "command terminated with non-zero exit code: " + std::to_string(outcome.exit_code);
  }
  nlohmann::json status = {{"metadata", nlohmann::json::object()},
                           {"status", good ? "Success" : "Failure"}};
  if (!outcome.status.ok()) {
    status["message"] = outcome.status.message();
    status["reason"] = "InternalError";
    status["details"] = {{"causes", {{{"message", outcome.status.message()}}}}};
    status["code"] = 500;
  } else if (!good) {
    const std::string code = std::to_string(outcome.exit_code);
    status["message"] = "command terminated with non-zero exit code: " + code;
    status["reason"] = "NonZeroExitCode";
    status["details"] = {{"causes", {{{"reason", "ExitCode"}, {"message", code}}}}};
  }
  return json::Dump(status);
}

std::optional<TerminalSize> ParseSize(std::string_view text) {
  const auto parsed = json::Parse(text, {.max_bytes = 256, .max_depth = 2});
  if (!parsed.ok()) return std::nullopt;
  const auto side = [&parsed](std::string_view name) -> std::uint16_t {
    const auto value = json::OptInt(*parsed, name);
    return value.ok() && *value > 0 && *value <= UINT16_MAX ? static_cast<std::uint16_t>(*value)
                                                            : 0;
  };
  const TerminalSize size{side("Width"), side("Height")};
  if (size.width == 0 || size.height == 0) return std::nullopt;
  return size;
}

}  // namespace crisp::rund::streaming
