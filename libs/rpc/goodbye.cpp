#include "libs/rpc/goodbye.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <optional>
#include <thread>

namespace crisp::rpc {
namespace {

using Time = std::chrono::steady_clock::time_point;

constexpr std::chrono::milliseconds kLook{1};
constexpr int kQuietLooks = 3;
/// From a client's reading the frame to its heeding it, on a busy machine.
constexpr std::chrono::milliseconds kHeed{30};

/// RFC 9113, 6.8. The highest stream is the highest that there can be: no call is given up.
constexpr std::array<unsigned char, 17> kGoaway = {
    0,    0,    8,           // length of what follows the header
    7,                       // GOAWAY
    0,                       // no flags
    0,    0,    0,    0,     // the connection's own stream
    0x7f, 0xff, 0xff, 0xff,  // the last stream that is served
    0,    0,    0,    0};    // NO_ERROR

class Client {
 public:
  explicit Client(const os::UniqueFd& connection) : connection_(&connection) {}

  /// One step on. True: it is gone, or knows.
  bool Look(Time now) {
    if (HungUp(*connection_)) return true;
    if (heard_) return now - *heard_ >= kHeed;
    // More than one look: of a large frame gRPC may be between two writes.
    quiet_ = AllRead() ? quiet_ + 1 : 0;
    if (quiet_ < kQuietLooks) return false;
    if (told_) {
      heard_ = now;
    } else {
      told_ = send(connection_->get(), kGoaway.data(), kGoaway.size(),
                   MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(kGoaway.size());
    }
    return false;
  }

 private:
  bool AllRead() const {
    int bytes = 0;
    return ioctl(connection_->get(), SIOCOUTQ, &bytes) == 0 && bytes == 0;
  }

  const os::UniqueFd* connection_;
  int quiet_ = 0;  // looks in a row at which all had been read
  bool told_ = false;
  std::optional<Time> heard_;
};

}  // namespace

bool HungUp(const os::UniqueFd& connection) {
  pollfd look{connection.get(), 0, 0};
  return poll(&look, 1, 0) > 0;
}

void SayGoodbye(const std::vector<os::UniqueFd>& connections, std::chrono::milliseconds limit) {
  std::vector<Client> clients(connections.begin(), connections.end());
  Time now = std::chrono::steady_clock::now();
  const Time until = now + limit;
  while (true) {
    std::erase_if(clients, [now](Client& client) { return client.Look(now); });
    if (clients.empty() || now >= until) return;
    std::this_thread::sleep_for(kLook);
    now = std::chrono::steady_clock::now();
  }
}

}  // namespace crisp::rpc
