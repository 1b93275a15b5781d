#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace crisp::rund::streaming {

/// Certificate and key; empty paths = plain HTTP.
struct TlsFiles {
  std::string certificate;  // PEM, with its chain
  std::string key;
  std::string min_version = "1.2";  // or "1.3"
};

/// At the end of a session.
struct EndTimes {
  std::chrono::milliseconds drain{30'000};  // without progress, for a client to take what is left
  std::chrono::milliseconds linger{5'000};  // when it has taken all: for it to close
  std::chrono::milliseconds step{1'000};    // between two looks
};

struct ServerOptions {
  std::string address = "127.0.0.1:0";
  TlsFiles tls;
  /// A session in which no byte of a stream moves for so long is ended. 0 = never.
  std::chrono::seconds idle_timeout{4 * 3600};
  /// For a runtime to start the command of an exec.
  std::chrono::seconds start_timeout{120};
  /// With so many commands that run on after their clients have gone no new exec is taken: each has
  /// a helper process and a descriptor of ours.
  std::size_t max_left = 1000;
  /// Between two attempts to listen; between two looks at the sessions; and at the certificate.
  std::chrono::milliseconds retry{5'000}, check{5'000}, tls_check{30'000};
};

}  // namespace crisp::rund::streaming
