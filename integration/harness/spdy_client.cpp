#include "integration/harness/spdy_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <stdexcept>

#include "libs/os/files.h"
#include "libs/os/namespaces.h"

namespace crisp::harness {
namespace {

using std::chrono::steady_clock;
constexpr std::uint32_t kLow31 = 0x7fffffff;

std::string HostPort(const std::string& url) {
  const std::size_t begin = url.find("://") + 3;
  return url.substr(begin, url.find('/', begin) - begin);
}

}  // namespace

std::string PathOf(const std::string& url) {
  return url.substr(url.find('/', url.find("://") + 3));
}

os::UniqueFd ConnectTo(const std::string& url) {
  const std::string host = HostPort(url);
  os::UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(host.substr(host.find(':') + 1))));
  inet_pton(AF_INET, host.substr(0, host.find(':')).c_str(), &address.sin_addr);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw std::runtime_error("cannot connect to " + host);
  }
  const int yes = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return fd;
}

os::UniqueFd ConnectInNode(const Node& node, const std::string& url) {
  os::UniqueFd fd;
  const Status made = os::RunInNamespace(node.NetnsPath(), [&fd, &url] {
    fd = ConnectTo(url);
    return Status::Ok();
  });
  if (!made.ok()) throw std::runtime_error(made.ToString());
  return fd;
}

SpdyClient::SpdyClient(os::UniqueFd connection, const std::string& url,
                       const std::vector<std::string>& protocols, const std::string& method)
    : fd_(std::move(connection)),
      frames_({.on_control =
                   [this](const spdy::Control& control) {
                     const std::string_view payload = control.payload;
                     const std::uint32_t id = spdy::Get32(payload, 0) & kLow31;
                     if (control.type == spdy::Type::kSynReply) {
                       streams_[id].replied = true;
                       const auto headers = headers_in_.Read(payload.substr(4));
                       if (!headers.ok()) return headers.status();
                     }
                     if (control.type == spdy::Type::kRstStream) streams_[id].reset = true;
                     if (control.type == spdy::Type::kPing) last_ping_ = id;
                     if (control.type == spdy::Type::kWindowUpdate) ++window_updates_;
                     return Status::Ok();
                   },
               .on_data =
                   [this](std::uint32_t id, std::string_view piece) {
                     streams_[id].size += piece.size();
                     if (const auto taker = takers_.find(id); taker != takers_.end()) {
                       taker->second(piece);
                     } else {
                       streams_[id].data += piece;
                     }
                     return Status::Ok();
                   },
               .on_data_end =
                   [this](std::uint32_t id, std::uint8_t flags) {
                     if ((flags & spdy::kFlagFin) != 0) streams_[id].fin = true;
                     return Status::Ok();
                   }}) {
  std::string request = method + " " + PathOf(url) + " HTTP/1.1\r\nHost: node\r\n" +
                        "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
  for (const std::string& name : protocols) {
    request += "X-Stream-Protocol-Version: " + name + "\r\n";
  }
  request += "\r\n";
  SendFrame(request);
  std::string head;
  char c = 0;
  while (head.find("\r\n\r\n") == std::string::npos && read(fd_.get(), &c, 1) == 1) head += c;
  if (head.size() > 12) status_ = std::stoi(head.substr(9, 3));
  const std::string name = "X-Stream-Protocol-Version: ";
  if (const auto at = head.find(name); at != std::string::npos) {
    protocol_ = head.substr(at + name.size(), head.find("\r\n", at) - at - name.size());
  }
  if (status_ != 101) body_ = os::ReadAll(fd_.get(), "body", MiB(1)).value_or("");
}

void SpdyClient::SendFrame(const std::string& frame) {
  const std::lock_guard lock(sending_);
  std::size_t sent = 0;
  while (sent < frame.size()) {
    const ssize_t n = send(fd_.get(), frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;  // the reader sees the end
    sent += static_cast<std::size_t>(n);
  }
}

std::uint32_t SpdyClient::Open(const spdy::Headers& headers) {
  const std::uint32_t id = next_;
  next_ += 2;
  SendFrame(spdy::SynStream(id, 0, headers_out_.Write(headers)));
  return id;
}

void SpdyClient::Send(std::uint32_t stream, std::string_view bytes, bool fin) {
  SendFrame(spdy::DataFrame(stream, fin ? spdy::kFlagFin : 0, bytes));
}

bool SpdyClient::ReadSome(int timeout_ms) {
  pollfd watched{fd_.get(), POLLIN, 0};
  if (poll(&watched, 1, timeout_ms) <= 0) return false;
  static thread_local std::array<char, 1 << 17U> buffer;
  const ssize_t n = read(fd_.get(), buffer.data(), buffer.size());
  if (n <= 0) {
    ended_ = true;
    return false;
  }
  const Status fed = frames_.Feed({buffer.data(), static_cast<std::size_t>(n)});
  if (!fed.ok()) throw std::runtime_error(fed.ToString());
  return true;
}

bool SpdyClient::Read(const std::function<bool()>& done, std::chrono::milliseconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  while (!done() && !ended_ && steady_clock::now() < deadline) ReadSome(50);
  return done();
}

RemoteClient::RemoteClient(os::UniqueFd connection, const std::string& url, bool with_in,
                           bool with_out, bool with_err, bool tty, const std::string& protocol)
    : client(std::move(connection), url, {protocol}) {
  if (client.status() != 101) throw std::runtime_error("no upgrade: " + client.body());
  error = client.Open({{"streamtype", "error"}});
  if (with_in) in = client.Open({{"streamtype", "stdin"}});
  if (with_out) out = client.Open({{"streamtype", "stdout"}});
  if (with_err && !tty) err = client.Open({{"streamtype", "stderr"}});
  if (tty) resize = client.Open({{"streamtype", "resize"}});
}

std::string RemoteClient::Finish(std::chrono::milliseconds timeout) {
  client.Read([] { return false; }, timeout);
  return client.of(error).data;
}

}  // namespace crisp::harness
