#include "services/imaged/registry/hosts_toml.h"

#include <algorithm>

#include "libs/base/try.h"
#include "libs/config/toml.h"
#include "libs/os/files.h"
#include "services/imaged/registry/certs.h"

namespace crisp::imaged {
namespace {

using config::TomlTable;
using config::TomlValue;
using Kind = TomlValue::Kind;

std::string Absolute(const std::string& dir, const std::string& path) {
  return path.starts_with('/') ? path : dir + "/" + path;
}

/// client = "both.pem", ["a.pem", …] or [["a.cert", "a.key"], …]: the first is shown.
Status ParseClient(const TomlTable& table, const std::string& dir, http::TlsOptions& tls) {
  const TomlValue* client = table.value().Find("client");
  if (client == nullptr) return Status::Ok();
  const auto wrong = [&table] {
    return table.Wrong("client", "a file, a list of files or of [certificate, key] is expected");
  };
  if (client->kind == Kind::kArray) {
    if (client->items.empty()) return Status::Ok();
    client = &client->items.front();
  }
  if (client->kind == Kind::kString) {
    tls.client_cert = tls.client_key = Absolute(dir, client->text);
    return Status::Ok();
  }
  if (client->kind != Kind::kArray || client->items.empty() || client->items.size() > 2) {
    return wrong();
  }
  for (const TomlValue& each : client->items)
    if (each.kind != Kind::kString) return wrong();
  tls.client_cert = Absolute(dir, client->items.front().text);
  tls.client_key = client->items.back().text.empty() ? tls.client_cert
                                                     : Absolute(dir, client->items.back().text);
  return Status::Ok();
}

Status ParseHeaders(const TomlTable& table, http::Headers& headers) {
  const TomlTable all = CRISP_TRY(table.Table("header"));
  for (const auto& [name, value] : all.value().members) {
    for (const std::string& each : CRISP_TRY(all.TextOrTexts(name))) {
      if ((name + each).find_first_of("\r\n") != std::string::npos)
        return all.Wrong(name, "has a line break");
      headers.emplace_back(name, each);
    }
  }
  return Status::Ok();
}

Result<HostsToml::Host> ParseHost(const TomlTable& table, std::string address,
                                  const std::string& dir) {
  HostsToml::Host host;
  if (address.find("://") == std::string::npos) address.insert(0, "https://");
  const Result<http::Url> url = http::Url::Parse(address);
  if (!url.ok()) return table.Wrong("", fmt::format("'{}': {}", address, url.status().message()));
  host.url = *url;
  std::string& path = host.url.target;
  if (path.find('?') != std::string::npos)
    return table.Wrong("", fmt::format("'{}' has a query", address));
  while (path.ends_with('/')) path.pop_back();
  const bool override_path = CRISP_TRY(table.Bool("override_path", false));
  if (!override_path && !path.ends_with("/v2")) path += "/v2";

  const std::vector<std::string> capabilities = CRISP_TRY(table.Texts("capabilities"));
  if (!capabilities.empty()) {
    host.can_resolve = host.can_pull = false;
    for (const std::string& each : capabilities) {
      if (each == "resolve") {
        host.can_resolve = true;
      } else if (each == "pull") {
        host.can_pull = true;
      } else if (each != "push") {
        return table.Wrong("capabilities",
                           fmt::format("'{}' is none of pull, resolve, push", each));
      }
    }
  }
  host.verify_tls = !CRISP_TRY(table.Bool("skip_verify", false));
  http::TlsOptions tls;
  for (const std::string& file : CRISP_TRY(table.TextOrTexts("ca")))
    tls.ca_files.push_back(Absolute(dir, file));
  CRISP_TRY(ParseClient(table, dir, tls));
  if (!tls.ca_files.empty() || !tls.client_cert.empty()) host.tls = WithKey(std::move(tls));
  CRISP_TRY(ParseHeaders(table, host.headers));
  return host;
}

/// containerd's form for file systems without colons, before the plain one.
std::vector<std::string> DirsFor(const std::string& host) {
  std::vector<std::string> dirs;
  if (const std::size_t colon = host.rfind(':'); colon != std::string::npos && colon > 0)
    dirs.push_back(host.substr(0, colon) + "_" + host.substr(colon + 1) + "_");
  dirs.push_back(host);
  dirs.emplace_back("_default");
  return dirs;
}

}  // namespace

Result<HostsToml> HostsToml::Parse(std::string_view text, const std::string& file,
                                   const std::string& dir, const std::string& host) {
  const TomlValue document = CRISP_TRY(config::ParseToml(text, file));
  const TomlTable root(document, file);
  HostsToml hosts;
  const TomlTable mirrors = CRISP_TRY(root.Table("host"));
  for (const auto& [address, value] : mirrors.value().members) {
    if (value.kind != Kind::kTable) return mirrors.Wrong(address, "a table is expected");
    hosts.mirrors.push_back(CRISP_TRY(ParseHost(TomlTable(value, file), address, dir)));
  }
  std::string server = CRISP_TRY(root.Text("server"));
  // What stands at the top is about the server, also where it is not named.
  const bool about_server = std::any_of(document.members.begin(), document.members.end(),
                                        [](const auto& member) { return member.first != "host"; });
  if (server.empty() && about_server) server = host == "docker.io" ? "registry-1.docker.io" : host;
  if (server == "https://docker.io" || server == "docker.io") server = "registry-1.docker.io";
  if (!server.empty()) hosts.server = CRISP_TRY(ParseHost(root, server, dir));
  return hosts;
}

Result<std::optional<HostsToml>> HostsToml::Load(const std::string& hosts_dir,
                                                 const std::string& host) {
  if (hosts_dir.empty() || host.empty() || host.front() == '.' || host.front() == '_')
    return std::optional<HostsToml>();
  for (const std::string& name : DirsFor(host)) {
    const std::string dir = hosts_dir + "/" + name;
    const std::string file = dir + "/hosts.toml";
    const Result<std::string> text = os::ReadFile(file);
    if (text.code() == Code::kNotFound) {
      // A host's directory without the file is one of certificates, and hides _default.
      if (os::IsDirectory(dir)) return std::optional<HostsToml>();
      continue;
    }
    if (!text.ok()) return FailedPrecondition("{}", text.status().message());
    Result<HostsToml> parsed = Parse(*text, file, dir, host);
    if (!parsed.ok()) return FailedPrecondition("{}", parsed.status().message());
    return std::optional<HostsToml>(*std::move(parsed));
  }
  return std::optional<HostsToml>();
}

std::vector<std::string> HostsToml::TlsFiles(const std::string& hosts_dir) {
  std::vector<std::string> files;
  const auto add = [&files](const Host& host) {
    if (!host.tls) return;
    files.insert(files.end(), host.tls->ca_files.begin(), host.tls->ca_files.end());
    if (host.tls->client_cert.empty()) return;
    files.push_back(host.tls->client_cert);
    files.push_back(host.tls->client_key);
  };
  for (const std::string& host : os::ListDir(hosts_dir).value_or({})) {
    const std::string dir = hosts_dir + "/" + host;
    const Result<std::string> text = os::ReadFile(dir + "/hosts.toml");
    if (!text.ok()) continue;
    const Result<HostsToml> hosts = Parse(*text, dir + "/hosts.toml", dir, host);
    if (!hosts.ok()) continue;
    for (const Host& mirror : hosts->mirrors) add(mirror);
    if (hosts->server) add(*hosts->server);
  }
  return files;
}

}  // namespace crisp::imaged
