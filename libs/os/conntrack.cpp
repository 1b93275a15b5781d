#include "libs/os/conntrack.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <string_view>

#include "libs/base/try.h"
#include "libs/os/unique_fd.h"

namespace crisp::os {
namespace {

constexpr std::size_t kAnswerBytes = std::size_t{64} << 10U;

/// The content of the first attribute of the type; empty without one.
std::string_view Attribute(std::string_view attributes, int type) {
  nlattr head = {};
  while (attributes.size() >= sizeof(head)) {
    std::memcpy(&head, attributes.data(), sizeof(head));
    if (head.nla_len < sizeof(head) || head.nla_len > attributes.size()) return {};
    if ((head.nla_type & NLA_TYPE_MASK) == type) {
      return attributes.substr(sizeof(head), head.nla_len - sizeof(head));
    }
    const std::size_t whole = NLA_ALIGN(head.nla_len);
    attributes.remove_prefix(std::min(whole, attributes.size()));
  }
  return {};
}

void Append(std::string& message, std::uint16_t type, std::string_view content) {
  const nlattr head = {.nla_len = static_cast<std::uint16_t>(sizeof(head) + content.size()),
                       .nla_type = type};
  message.append(reinterpret_cast<const char*>(&head), sizeof(head));
  message.append(content);
  message.resize(NLMSG_ALIGN(message.size()));
}

/// "10.1.2.3", "fd00::1"; empty when it is neither.
std::string AddressText(std::string_view bytes) {
  const int family = bytes.size() == sizeof(in_addr) ? AF_INET : AF_INET6;
  if (family == AF_INET6 && bytes.size() != sizeof(in6_addr)) return {};
  std::array<char, INET6_ADDRSTRLEN> text = {};
  if (::inet_ntop(family, bytes.data(), text.data(), text.size()) == nullptr) return {};
  return text.data();
}

/// As inet_ntop(3) spells it.
std::string Canonical(const std::string& address) {
  std::array<char, sizeof(in6_addr)> bytes = {};
  for (const auto& [family, size] :
       {std::pair(AF_INET, sizeof(in_addr)), std::pair(AF_INET6, sizeof(in6_addr))}) {
    if (::inet_pton(family, address.c_str(), bytes.data()) == 1) {
      return AddressText({bytes.data(), size});
    }
  }
  return address;
}

bool IsToOneOf(std::string_view tuple, const std::vector<UdpEnd>& ends) {
  const std::string_view protocol = Attribute(tuple, CTA_TUPLE_PROTO);
  const std::string_view number = Attribute(protocol, CTA_PROTO_NUM);
  const std::string_view port_bytes = Attribute(protocol, CTA_PROTO_DST_PORT);
  std::uint16_t port = 0;
  if (number.empty() || number.front() != IPPROTO_UDP || port_bytes.size() < sizeof(port)) {
    return false;
  }
  std::memcpy(&port, port_bytes.data(), sizeof(port));
  port = ntohs(port);
  const std::string_view ip = Attribute(tuple, CTA_TUPLE_IP);
  std::string_view address = Attribute(ip, CTA_IP_V4_DST);
  if (address.empty()) address = Attribute(ip, CTA_IP_V6_DST);
  return std::any_of(ends.begin(), ends.end(), [port, address](const UdpEnd& end) {
    return end.port == port && (end.address.empty() || end.address == AddressText(address));
  });
}

/// A conntrack message of netlink: header, family, attributes.
std::string Message(int type, int flags, std::uint8_t family, std::string_view attributes) {
  struct {
    nlmsghdr header;
    nfgenmsg netfilter;
  } head = {};
  head.header.nlmsg_len = static_cast<std::uint32_t>(sizeof(head) + attributes.size());
  head.header.nlmsg_type = static_cast<std::uint16_t>((NFNL_SUBSYS_CTNETLINK << 8) | type);
  head.header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  head.netfilter.nfgen_family = family;
  head.netfilter.version = NFNETLINK_V0;
  std::string message(reinterpret_cast<const char*>(&head), sizeof(head));
  return message.append(attributes);
}

Result<UniqueFd> Connect() {
  UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  if (!socket) return Status::Errno(errno, "netlink socket for conntrack");
  constexpr timeval kPatience = {.tv_sec = 5, .tv_usec = 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
  return socket;
}

/// Sends a request and hands each answer's family and attributes to `each`, until the kernel says
/// that this was all.
Status Exchange(const UniqueFd& socket, const std::string& request,
                const std::function<void(std::uint8_t, std::string_view)>& each) {
  if (::send(socket.get(), request.data(), request.size(), 0) < 0) {
    return Status::Errno(errno, "ask conntrack");
  }
  std::string buffer(kAnswerBytes, '\0');
  while (true) {
    const ssize_t got = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::Errno(errno, "read conntrack");
    std::string_view rest(buffer.data(), static_cast<std::size_t>(got));
    nlmsghdr header = {};
    while (rest.size() >= sizeof(header)) {
      std::memcpy(&header, rest.data(), sizeof(header));
      if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > rest.size()) break;
      if (header.nlmsg_type == NLMSG_DONE) return Status::Ok();
      const std::string_view payload =
          rest.substr(sizeof(header), header.nlmsg_len - sizeof(header));
      if (header.nlmsg_type == NLMSG_ERROR) {
        int error = 0;
        if (payload.size() >= sizeof(error)) std::memcpy(&error, payload.data(), sizeof(error));
        return error == 0 ? Status::Ok() : Status::Errno(-error, "conntrack");
      }
      if (payload.size() >= sizeof(nfgenmsg)) {
        nfgenmsg netfilter = {};
        std::memcpy(&netfilter, payload.data(), sizeof(netfilter));
        each(netfilter.nfgen_family, payload.substr(NLMSG_ALIGN(sizeof(netfilter))));
      }
      rest.remove_prefix(std::min<std::size_t>(NLMSG_ALIGN(header.nlmsg_len), rest.size()));
    }
  }
}

}  // namespace

Result<std::size_t> ForgetUdpFlows(const std::vector<UdpEnd>& ends) {
  if (ends.empty()) return std::size_t{0};
  std::vector<UdpEnd> wanted = ends;
  for (UdpEnd& end : wanted) end.address = Canonical(end.address);
  // Read to the end first: the kernel answers nothing else on a socket meanwhile.
  std::vector<std::string> requests;
  const auto collect = [&wanted, &requests](std::uint8_t family, std::string_view attributes) {
    const std::string_view tuple = Attribute(attributes, CTA_TUPLE_ORIG);
    if (!IsToOneOf(tuple, wanted)) return;  // nor without a tuple: that would mean all flows
    std::string which;
    Append(which, CTA_TUPLE_ORIG | NLA_F_NESTED, tuple);
    for (const int more : {CTA_ZONE, CTA_ID}) {
      const std::string_view content = Attribute(attributes, more);
      if (!content.empty()) Append(which, static_cast<std::uint16_t>(more), content);
    }
    requests.push_back(Message(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, family, which));
  };
  const UniqueFd socket = CRISP_TRY(Connect());
  CRISP_TRY(Exchange(socket, Message(IPCTNL_MSG_CT_GET, NLM_F_DUMP, AF_UNSPEC, {}), collect));
  std::size_t forgotten = 0;
  for (const std::string& request : requests) {
    const Status gone = Exchange(socket, request, [](std::uint8_t, std::string_view) {});
    if (gone.code() == Code::kNotFound) continue;  // it has ended by itself
    CRISP_TRY(gone);
    ++forgotten;
  }
  return forgotten;
}

}  // namespace crisp::os
