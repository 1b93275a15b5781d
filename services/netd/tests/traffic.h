#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "libs/os/unique_fd.h"

// Traffic between network namespaces; an empty one is the calling thread's.
namespace crisp::netd {

/// A socket that listens in the namespace, on any address of the family.
os::UniqueFd Listen(const std::string& netns, int family, int type, int port);
/// Whether a datagram or a connection from the namespace (empty: the calling thread's) to
/// address:port comes out at the listener, and its answer comes back.
bool Reaches(const std::string& netns, const std::string& address, int type, int port,
             const os::UniqueFd& listener);

/// A socket in a namespace that sends UDP to one end, always from the same port.
class UdpClient {
 public:
  UdpClient(const std::string& netns, const std::string& address, int port);
  void Send() const;
  /// Whether what it sends comes out at the listener, and the answer comes back.
  bool Reaches(const os::UniqueFd& listener) const;

 private:
  os::UniqueFd socket_;
};

/// Whether the first packet of an SCTP association from `netns` to address:port (IPv4) arrives in
/// `pod_netns`, for `pod_port`. Needs no SCTP of the kernel but that of its connection tracking.
bool SctpArrives(const std::string& netns, const std::string& address, int port,
                 const std::string& pod_netns, int pod_port);
/// How long `bytes` take over a TCP connection from the namespace to the listener.
std::chrono::nanoseconds TransferTime(const std::string& netns, const std::string& address,
                                      int port, const os::UniqueFd& listener, std::size_t bytes);

}  // namespace crisp::netd
