#include "services/netd/core/result.h"

#include <arpa/inet.h>

#include <array>

#include "libs/base/try.h"
#include "libs/json/json.h"

namespace crisp::netd {
namespace {

bool IsAddress(const std::string& text) {
  std::array<unsigned char, sizeof(in6_addr)> address = {};
  return ::inet_pton(AF_INET, text.c_str(), address.data()) == 1 ||
         ::inet_pton(AF_INET6, text.c_str(), address.data()) == 1;
}

}  // namespace

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
