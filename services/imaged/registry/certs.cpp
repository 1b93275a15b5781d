#include "services/imaged/registry/certs.h"

#include "libs/base/try.h"
#include "libs/os/file_stamp.h"
#include "libs/os/files.h"

namespace crisp::imaged {
namespace {

std::string VersionOf(const std::string& path) {
  return path.empty() ? path : path + " " + os::FileStamp(path);
}

}  // namespace

std::shared_ptr<const http::TlsOptions> WithKey(http::TlsOptions options) {
  options.key.clear();
  for (const std::string& file : options.ca_files) options.key += VersionOf(file) + "\n";
  options.key += VersionOf(options.client_cert) + "\n" + VersionOf(options.client_key);
  return std::make_shared<const http::TlsOptions>(std::move(options));
}

Result<std::shared_ptr<const http::TlsOptions>> CertsFor(const std::vector<std::string>& dirs,
                                                         const std::string& host) {
  using Found = std::shared_ptr<const http::TlsOptions>;
  if (host.empty() || host.front() == '.' || host.find('/') != std::string::npos) return Found();
  for (const std::string& dir : dirs) {
    const std::string here = dir + "/" + host;
    const Result<std::vector<std::string>> names = os::ListDir(here);
    if (names.code() == Code::kNotFound) continue;
    if (!names.ok()) return FailedPrecondition("certificates: {}", names.status().message());
    http::TlsOptions options;
    for (const std::string& name : *names) {
      const std::string path = here + "/" + name;
      const std::string stem = path.substr(0, path.rfind('.'));
      if (name.ends_with(".crt")) options.ca_files.push_back(path);
      if (name.ends_with(".cert")) {
        if (!os::Exists(stem + ".key"))
          return FailedPrecondition("{}: has no {}.key beside it", path, stem);
        if (options.client_cert.empty()) {
          options.client_cert = path;
          options.client_key = stem + ".key";
        }
      }
      if (name.ends_with(".key") && !os::Exists(stem + ".cert"))
        return FailedPrecondition("{}: has no {}.cert beside it", path, stem);
    }
    if (options.ca_files.empty() && options.client_cert.empty()) return Found();
    return WithKey(std::move(options));
  }
  return Found();
}

}  // namespace crisp::imaged
