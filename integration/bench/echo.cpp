#include "integration/bench/echo.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <stdexcept>

namespace crisp::bench {

void PlainEcho::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) throw std::runtime_error("the connection broke");
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

void PlainEcho::AwaitTotal(std::uint64_t total) {
  static thread_local std::array<char, 1 << 17U> buffer;
  while (got_ < total) {
    const ssize_t n = ::read(fd_.get(), buffer.data(), buffer.size());
    if (n <= 0) throw std::runtime_error("the connection ended");
    got_ += static_cast<std::uint64_t>(n);
  }
}

StreamEcho::StreamEcho(harness::SpdyClient& client, std::uint32_t in, std::uint32_t out)
    : client_(client), in_(in), out_(out) {
  client_.Take(out_, [](std::string_view) {});
}

void StreamEcho::AwaitTotal(std::uint64_t total) {
  if (!client_.Read([&] { return client_.of(out_).size >= total; }, std::chrono::minutes(5))) {
    throw std::runtime_error("the stream ended");
  }
}

}  // namespace crisp::bench
