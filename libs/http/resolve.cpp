#include <netdb.h>

#include <algorithm>
#include <array>
#include <boost/asio/ip/address.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "libs/base/try.h"
#include "libs/http/client.h"

namespace crisp::http {
namespace {

namespace asio = boost::asio;
using ErrorCode = boost::system::error_code;

bool IsIpAddress(const std::string& host) {
  ErrorCode error;
  asio::ip::make_address(host, error);
  return !error;
}

}  // namespace

bool IsLoopbackHost(std::string_view host) {
  if (host == "localhost") return true;
  ErrorCode error;
  const auto address = asio::ip::make_address(std::string(host), error);
  return !error && address.is_loopback();
}

Result<std::vector<ResolvedAddress>> ResolveHost(const CallContext& cc, const std::string& host,
                                                 std::uint16_t port) {
  if (IsIpAddress(host)) return std::vector<ResolvedAddress>{{host, port}};
  // getaddrinfo(3) knows no deadline: it runs on a thread that nobody has to wait for.
  struct Lookup {
    std::mutex mutex;
    std::condition_variable_any changed;
    bool done = false;
    int error = 0;
    std::vector<ResolvedAddress> addresses;
  };
  auto lookup = std::make_shared<Lookup>();
  std::thread([lookup, host, port] {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_ADDRCONFIG;
    addrinfo* found = nullptr;
    int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
    if (error != 0 && host == "localhost") {  // loopback only: ADDRCONFIG leaves nothing
      hints.ai_flags = 0;
      error = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
    }
    const std::unique_lock lock(lookup->mutex);
    lookup->error = error;
    for (const addrinfo* each = error == 0 ? found : nullptr; each != nullptr;
         each = each->ai_next) {
      std::array<char, NI_MAXHOST> text;
      if (::getnameinfo(each->ai_addr, each->ai_addrlen, text.data(), text.size(), nullptr, 0,
                        NI_NUMERICHOST) == 0)
        lookup->addresses.push_back({text.data(), port});
    }
    if (found != nullptr) ::freeaddrinfo(found);
    lookup->done = true;
    lookup->changed.notify_all();
  }).detach();
  std::unique_lock lock(lookup->mutex);
  const auto is_done = [&lookup] { return lookup->done; };
  const SteadyTime until =
      std::min(cc.deadline(), std::chrono::steady_clock::now() + std::chrono::seconds(20));
  lookup->changed.wait_until(lock, cc.stop(), until, is_done);
  if (!lookup->done) {
    CRISP_TRY(cc.Check());
    return Unavailable("the name {} was not resolved within 20 s", host);
  }
  if (lookup->error != 0)
    return Unavailable("the name {} does not resolve: {}", host, ::gai_strerror(lookup->error));
  if (lookup->addresses.empty()) return Unavailable("the name {} has no address", host);
  return lookup->addresses;
}

}  // namespace crisp::http
