#include "services/netd/core/result.h"

#include <arpa/inet.h>

#include <array>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "services/netd/core/conf_list.h"

namespace crisp::netd {
namespace {

/// Results up to 0.2.0 had an address of each family: {"ip4": {"ip", "gateway", "routes"}}.
Status LiftOld(nlohmann::json& result) {
  nlohmann::json ips = nlohmann::json::array();
  nlohmann::json routes = nlohmann::json::array();
  for (const char* family : {"ip4", "ip6"}) {
    const nlohmann::json one = CRISP_TRY(json::OptObject(result, family));
    result.erase(family);
    if (one.empty()) continue;
    nlohmann::json ip = {{"address", CRISP_TRY(json::GetString(one, "ip"))}};
    const std::string gateway = CRISP_TRY(json::OptString(one, "gateway"));
    if (!gateway.empty()) ip["gateway"] = gateway;
    ips.push_back(std::move(ip));
    for (nlohmann::json& route : CRISP_TRY(json::OptArray(one, "routes"))) {
      routes.push_back(std::move(route));
    }
  }
  result["ips"] = std::move(ips);
  if (!routes.empty()) result["routes"] = std::move(routes);
  return Status::Ok();
}

}  // namespace

bool IsAddress(const std::string& text) {
  std::array<unsigned char, sizeof(in6_addr)> address = {};
  return ::inet_pton(AF_INET, text.c_str(), address.data()) == 1 ||
         ::inet_pton(AF_INET6, text.c_str(), address.data()) == 1;
}

Result<nlohmann::json> ResultAs(nlohmann::json result, std::string_view version) {
  const std::string from = CRISP_TRY(json::OptString(result, "cniVersion", std::string(version)));
  if (from == "0.1.0" || from == "0.2.0") {
    CRISP_TRY(LiftOld(result));
  } else if (!IsKnownVersion(from)) {
    return InvalidArgument("a result of CNI version '{}', which is not known", from);
  }
  result["cniVersion"] = version;
  const nlohmann::json ips = CRISP_TRY(json::OptArray(result, "ips"));
  if (ips.empty()) return result;
  // Before 1.0.0 each address told its family.
  const bool tells_family = !IsAtLeast(version, "1.0.0");
  for (nlohmann::json& ip : result["ips"]) {
    const std::string address = CRISP_TRY(json::GetString(ip, "address").While("ips"));
    ip.erase("version");
    if (tells_family) ip["version"] = address.find(':') == address.npos ? "4" : "6";
  }
  return result;
}

Result<std::vector<std::string>> AddressesOf(const nlohmann::json& result) {
  std::vector<std::string> addresses;
  for (const nlohmann::json& ip : CRISP_TRY(json::OptArray(result, "ips"))) {
    const std::string with_prefix =
        CRISP_TRY(json::GetString(ip, "address").While("ips[{}]", addresses.size()));
    std::string address = with_prefix.substr(0, with_prefix.find('/'));
    if (!IsAddress(address)) {
      return InvalidArgument("ips[{}].address: '{}' is no address", addresses.size(), with_prefix);
    }
    addresses.push_back(std::move(address));
  }
  return addresses;
}

}  // namespace crisp::netd
