#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "libs/http/client.h"
#include "libs/ref/ref.h"
#include "services/imaged/registry/auth.h"
#include "services/imaged/registry/auth_files.h"
#include "services/imaged/registry/registries_conf.h"

namespace crisp::imaged {

/// Where the node's registry configuration is. An empty path: nothing is read.
struct HostsOptions {
  std::vector<std::string> insecure;     // host or host:port
  std::string registries_conf;           // with its <file>.d
  std::string short_name_aliases;        // remembered ones, below those of registries_conf
  std::string hosts_dir;                 // containerd's certs.d/<host>/hosts.toml
  std::vector<std::string> certs_dirs;   // certs.d/<host>/*.crt …
  std::vector<std::string> auth_files;   // auth.json, config.json
  std::vector<std::string> helper_dirs;  // of docker-credential-*
};

/// One place that an image may come from, how it is reached and how far it is trusted.
struct Endpoint {
  http::Url root;          // the API's: "https://host/v2"; http only after Hosts::Settle
  std::string repository;  // "library/busybox"
  std::string location;    // host[:port]/repository, for credentials and errors
  bool mirror = false;
  bool own = false;               // the image's own name leads to this host
  bool can_resolve = true;        // tags
  bool can_pull = true;           // by digest
  bool insecure_allowed = false;  // plain HTTP is acceptable there
  bool verify_tls = true;
  bool settled = false;  // the scheme is certain
  std::shared_ptr<const http::TlsOptions> tls;
  http::Headers headers;   // for this origin only
  std::string name_space;  // containerd's ?ns=: the registry that a mirror stands in for
};

/// The node's registry configuration: which names an image may have, where those are fetched, with
/// which certificates and credentials. Files are looked at again with every question. Any thread.
class Hosts {
 public:
  Hosts(http::Client& client, HostsOptions options, Clock& clock = Clock::System());

  /// RegistriesConf::NamesOf.
  Result<std::vector<ref::ImageRef>> Names(std::string_view image);
  /// The same for images that are here: where the configuration gives no answer, the plain reading.
  Result<std::vector<ref::ImageRef>> NamesHere(std::string_view image);
  /// The endpoints of an image, in the order to ask. kPermissionDenied: blocked;
  /// kFailedPrecondition: a configuration file is broken, by file and line.
  Result<std::vector<Endpoint>> Find(const ref::ImageRef& image);
  /// Finds out whether an endpoint that may be spoken to in plain HTTP must be: when it answers a
  /// greeting of TLS in another protocol. That is remembered for some minutes. kUnavailable: nobody
  /// answers there, or the connection breaks.
  Status Settle(const CallContext& cc, Endpoint& endpoint);
  /// Plain HTTP did not go well there: Settle asks anew.
  void Doubt(const Endpoint& endpoint);
  /// True when the operator says that this host (host:port) may be spoken to in plain HTTP, and its
  /// certificate be anybody's.
  bool IsInsecure(const std::string& host);
  /// CertsFor the host in the configured directories.
  Result<std::shared_ptr<const http::TlsOptions>> CertsOf(const std::string& host) const;
  /// What to show at the endpoint: `given` by the pull's caller if they may go there, else the
  /// node's own. Errors as AuthFiles::Find.
  Result<FoundCredentials> CredentialsFor(const CallContext& cc, const Endpoint& endpoint,
                                          const Credentials& given);
  TokenCache& tokens() { return tokens_; }

 private:
  bool IsListed(const std::string& host) const;
  Result<Endpoint> EndpointOf(const Place& place, const ref::ImageRef& image) const;

  http::Client& client_;
  const HostsOptions options_;
  RegistriesConfFile registries_;
  const AuthFiles auth_files_;
  Clock& clock_;
  TokenCache tokens_;
  std::mutex mutex_;
  std::map<std::string, SteadyTime> plain_http_;  // by host: until when it counts as plain
};

}  // namespace crisp::imaged
