#include "services/rund/streaming/tcp.h"

#include <linux/sockios.h>
#include <linux/tcp.h>  // glibc's has a tcp_info without bytes_acked
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace crisp::rund::streaming {
namespace {

constexpr int kIdleSeconds = 60;
constexpr int kIntervalSeconds = 15;
constexpr int kProbes = 4;

void Set(int socket, int level, int option, int value) {
  // Without it a dead peer is found later.
  static_cast<void>(setsockopt(socket, level, option, &value, sizeof value));
}

}  // namespace

TcpProgress ProgressOf(int socket) {
  TcpProgress progress;
  tcp_info info{};
  socklen_t size = sizeof info;
  if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return {};
  progress.acknowledged = info.tcpi_bytes_acked;
  if (ioctl(socket, SIOCOUTQ, &progress.outstanding) != 0) return {};
  return progress;
}

void KeepAlive(int socket) {
  Set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  Set(socket, IPPROTO_TCP, TCP_KEEPIDLE, kIdleSeconds);
  Set(socket, IPPROTO_TCP, TCP_KEEPINTVL, kIntervalSeconds);
  Set(socket, IPPROTO_TCP, TCP_KEEPCNT, kProbes);
}

}  // namespace crisp::rund::streaming
