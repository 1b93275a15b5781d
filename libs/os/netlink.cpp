#include "libs/os/netlink.h"

#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string_view>

#include "libs/os/unique_fd.h"

namespace crisp::os {
namespace {

/// RTA_OIF of an RTM_NEWROUTE message; 0: it is none, or has none.
int OutgoingInterface(std::string_view message) {
  nlmsghdr header = {};
  if (message.size() < sizeof(header)) return 0;
  std::memcpy(&header, message.data(), sizeof(header));
  if (header.nlmsg_type != RTM_NEWROUTE || header.nlmsg_len > message.size()) return 0;
  message = message.substr(0, header.nlmsg_len);
  std::size_t at = NLMSG_ALIGN(sizeof(header)) + NLMSG_ALIGN(sizeof(rtmsg));
  rtattr attribute = {};
  while (at + sizeof(attribute) <= message.size()) {
    std::memcpy(&attribute, message.data() + at, sizeof(attribute));
    int index = 0;
    if (attribute.rta_len < sizeof(attribute)) return 0;
    if (attribute.rta_type == RTA_OIF && attribute.rta_len >= RTA_LENGTH(sizeof(index)) &&
        at + RTA_LENGTH(sizeof(index)) <= message.size()) {
      std::memcpy(&index, message.data() + at + RTA_LENGTH(0), sizeof(index));
      return index;
    }
    at += RTA_ALIGN(attribute.rta_len);
  }
  return 0;
}

}  // namespace

Status SetLoopbackUp() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return Status::Errno(errno, "socket for lo");
  ifreq request = {};
  std::strncpy(request.ifr_name, "lo", IFNAMSIZ - 1);
  if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0) {
    return Status::Errno(errno, "read the flags of lo");
  }
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) {
    return Status::Errno(errno, "set lo up");
  }
  return Status::Ok();
}

Result<std::string> InterfaceTowards(const std::string& ipv4) {
  struct {
    nlmsghdr header;
    rtmsg route;
    rtattr attribute;
    in_addr address;
  } request = {};
  if (::inet_pton(AF_INET, ipv4.c_str(), &request.address) != 1) {
    return InvalidArgument("'{}' is no IPv4 address", ipv4);
  }
  constexpr unsigned char kAddressBits = 32;
  request.header = {.nlmsg_len = sizeof(request),
                    .nlmsg_type = RTM_GETROUTE,
                    .nlmsg_flags = NLM_F_REQUEST,
                    .nlmsg_seq = 1,
                    .nlmsg_pid = 0};
  request.route.rtm_family = AF_INET;
  request.route.rtm_dst_len = kAddressBits;
  request.attribute = {.rta_len = RTA_LENGTH(sizeof(in_addr)), .rta_type = RTA_DST};

  const UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!socket) return Status::Errno(errno, "netlink socket");
  if (::send(socket.get(), &request, sizeof(request), 0) < 0) {
    return Status::Errno(errno, "ask for the route to {}", ipv4);
  }
  constexpr std::size_t kAnswer = 4096;
  std::array<char, kAnswer> buffer;
  const ssize_t got = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
  if (got < 0) return Status::Errno(errno, "read the route to {}", ipv4);
  const int index = OutgoingInterface({buffer.data(), static_cast<std::size_t>(got)});
  if (index == 0) return Unavailable("no route to {}", ipv4);
  std::array<char, IF_NAMESIZE> name = {};
  if (::if_indextoname(static_cast<unsigned>(index), name.data()) == nullptr) {
    return Status::Errno(errno, "interface {}", index);
  }
  return std::string(name.data());
}

}  // namespace crisp::os
