#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "integration/harness/node.h"
#include "libs/os/unique_fd.h"
#include "services/rund/streaming/spdy_frames.h"
#include "services/rund/streaming/spdy_headers.h"

namespace crisp::harness {

namespace spdy = crisp::rund::streaming::spdy;

/// A TCP connection to "http://IP:port/...", here or inside the node; throws when there is none.
os::UniqueFd ConnectTo(const std::string& url);
os::UniqueFd ConnectInNode(const Node& node, const std::string& url);
/// What is after the port.
std::string PathOf(const std::string& url);

/// A client of rund's streaming server as kubelet and crictl are: SPDY/3.1 without flow control of
/// its own. One thread reads; others may send.
class SpdyClient {
 public:
  struct Received {
    std::string data;
    std::uint64_t size = 0;
    bool fin = false;
    bool reset = false;
    bool replied = false;
  };

  /// Connects and asks for the upgrade. Look at status() before anything else.
  SpdyClient(const Node& node, const std::string& url, const std::vector<std::string>& protocols,
             const std::string& method = "POST")
      : SpdyClient(ConnectInNode(node, url), url, protocols, method) {}
  SpdyClient(os::UniqueFd connection, const std::string& url,
             const std::vector<std::string>& protocols, const std::string& method = "POST");

  int status() const { return status_; }
  const std::string& protocol() const { return protocol_; }
  /// Of a refusal.
  const std::string& body() const { return body_; }

  std::uint32_t Open(const spdy::Headers& headers);
  void Send(std::uint32_t stream, std::string_view bytes, bool fin = false);
  void SendFrame(const std::string& frame);
  /// Reads until `done`, the end of the connection or the timeout; the last answer of `done`.
  bool Read(const std::function<bool()>& done,
            std::chrono::milliseconds timeout = std::chrono::seconds(20));
  Received& of(std::uint32_t stream) { return streams_[stream]; }
  bool ended() const { return ended_; }
  std::uint32_t last_ping() const { return last_ping_; }
  std::uint64_t window_updates() const { return window_updates_; }
  /// The data of this stream is counted and handed over in place of being kept.
  void Take(std::uint32_t stream, std::function<void(std::string_view)> taker) {
    takers_[stream] = std::move(taker);
  }
  void Close() { fd_.reset(); }

 private:
  bool ReadSome(int timeout_ms);

  os::UniqueFd fd_;
  int status_ = 0;
  std::string protocol_, body_;
  std::mutex sending_;
  spdy::HeaderWriter headers_out_;
  spdy::HeaderReader headers_in_;
  spdy::FrameReader frames_;
  std::uint32_t next_ = 1;
  std::map<std::uint32_t, Received> streams_;
  std::map<std::uint32_t, std::function<void(std::string_view)>> takers_;
  bool ended_ = false;
  std::uint32_t last_ping_ = 0;
  std::uint64_t window_updates_ = 0;
};

/// An exec or attach over SPDY with its streams open.
struct RemoteClient {
  RemoteClient(const Node& node, const std::string& url, bool with_in, bool with_out, bool with_err,
               bool tty, const std::string& protocol = "v4.channel.k8s.io")
      : RemoteClient(ConnectInNode(node, url), url, with_in, with_out, with_err, tty, protocol) {}
  RemoteClient(os::UniqueFd connection, const std::string& url, bool with_in, bool with_out,
               bool with_err, bool tty, const std::string& protocol = "v4.channel.k8s.io");
  /// Reads until the connection's end; the text of the error stream.
  std::string Finish(std::chrono::milliseconds timeout = std::chrono::seconds(20));

  SpdyClient client;
  std::uint32_t error = 0, in = 0, out = 0, err = 0, resize = 0;
};

}  // namespace crisp::harness
