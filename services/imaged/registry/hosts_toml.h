#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/http/client.h"

namespace crisp::imaged {

/// containerd's registry configuration: <dir>/<host>/hosts.toml, or that of _default.
struct HostsToml {
  struct Host {
    http::Url url;            // of the API's root, "/v2" and all, without a slash at the end
    bool can_resolve = true;  // tags
    bool can_pull = true;     // by digest
    bool verify_tls = true;
    std::shared_ptr<const http::TlsOptions> tls;
    http::Headers headers;
  };
  std::vector<Host> mirrors;   // in the order of the file
  std::optional<Host> server;  // asked last; nothing: as if there were no file

  /// `dir`: where the file is, for relative paths in it. `host`: whose file it is (the server where
  /// it names none). kInvalidArgument: "file:line: key: what".
  static Result<HostsToml> Parse(std::string_view text, const std::string& file,
                                 const std::string& dir, const std::string& host);
  /// Nothing when neither the host nor _default has a file. kFailedPrecondition: it is broken.
  static Result<std::optional<HostsToml>> Load(const std::string& hosts_dir,
                                               const std::string& host);
  /// Certificates and keys that the files of all hosts name. Broken files are passed over: whoever
  /// needs one tells of it.
  static std::vector<std::string> TlsFiles(const std::string& hosts_dir);
};

}  // namespace crisp::imaged
