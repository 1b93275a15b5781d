#include "services/imaged/registry/hosts.h"

#include <catch2/catch.hpp>

#include "libs/http/tests/raw_server.h"
#include "libs/testing/manual_clock.h"
#include "libs/testing/test_root.h"
#include "services/imaged/registry/certs.h"
#include "services/imaged/registry/hosts_toml.h"

namespace crisp::imaged {
namespace {

CallContext Soon() { return CallContext::Background(std::chrono::seconds(20)); }

/// One line for each endpoint of an image.
std::vector<std::string> Endpoints(Hosts& hosts, const std::string& image) {
  const auto endpoints = hosts.Find(*ref::Parse(image));
  if (!endpoints.ok()) return {"error: " + endpoints.status().message()};
  std::vector<std::string> lines;
  for (const Endpoint& each : *endpoints) {
    std::string line = each.mirror ? "mirror " : "";
    line += each.root.ForLog() + " " + each.repository;
    if (each.own) line += " own";
    if (!each.can_resolve) line += " no tags";
    if (!each.can_pull) line += " tags only";
    if (!each.verify_tls) line += " unverified";
    if (each.insecure_allowed) line += " plain";
    if (!each.name_space.empty()) line += " ns=" + each.name_space;
    if (each.tls) line += " certs";
    lines.push_back(line);
  }
  return lines;
}

using Lines = std::vector<std::string>;

TEST_CASE("Without any configuration an image comes from its own registry") {
  http::Client client;
  Hosts hosts(client, {.insecure = {"plain.example:5000", "any.example"}});
  CHECK(Endpoints(hosts, "busybox") ==
        Lines{"https://registry-1.docker.io/v2 library/busybox own"});
  CHECK(Endpoints(hosts, "quay.io/a/b:1") == Lines{"https://quay.io/v2 a/b own"});
  CHECK(Endpoints(hosts, "plain.example:5000/x") ==
        Lines{"https://plain.example:5000/v2 x own unverified plain"});
  CHECK(Endpoints(hosts, "any.example:7/x") ==
        Lines{"https://any.example:7/v2 x own unverified plain"});
  CHECK(Endpoints(hosts, "127.0.0.1:5000/x") == Lines{"https://127.0.0.1:5000/v2 x own plain"});
}

TEST_CASE("hosts.toml gives mirrors in its order, then the server") {
  const crisp::testing::TestRoot root;
  root.Write("certs.d/docker.io/hosts.toml", R"(
server = "https://docker.io"

[host."https://z.corp"]
  capabilities = ["pull", "resolve"]
  ca = "ca.crt"
  client = [["client.cert", "client.key"]]
[host."http://a.corp:5000"]
  capabilities = ["pull"]
  [host."http://a.corp:5000".header]
    x-one = "1"
    x-two = ["2", "3"]
[host."https://path.corp/v2/proxy"]
  override_path = true
  skip_verify = true
[host."sub.corp/api"]
)");
  http::Client client;
  Hosts hosts(client, {.hosts_dir = root / "certs.d"});
  CHECK(Endpoints(hosts, "busybox") ==
        Lines{"mirror https://z.corp/v2 library/busybox ns=docker.io certs",
              "mirror http://a.corp:5000/v2 library/busybox no tags plain ns=docker.io",
              "mirror https://path.corp/v2/proxy library/busybox unverified ns=docker.io",
              "mirror https://sub.corp/api/v2 library/busybox ns=docker.io",
              "https://registry-1.docker.io/v2 library/busybox own"});
  const auto endpoints = hosts.Find(*ref::Parse("busybox"));
  const http::TlsOptions& tls = *(*endpoints)[0].tls;
  CHECK(tls.ca_files == Lines{root / "certs.d/docker.io/ca.crt"});
  CHECK(tls.client_cert == root / "certs.d/docker.io/client.cert");
  CHECK(tls.client_key == root / "certs.d/docker.io/client.key");
  CHECK((*endpoints)[1].headers == http::Headers{{"x-one", "1"}, {"x-two", "2"}, {"x-two", "3"}});
  CHECK(Endpoints(hosts, "quay.io/x") == Lines{"https://quay.io/v2 x own"});
}

TEST_CASE("hosts.toml is found for hosts with ports and for all others by _default") {
  const crisp::testing::TestRoot root;
  http::Client client;
  Hosts hosts(client, {.hosts_dir = root / "d"});
  root.Write("d/_default/hosts.toml", "[host.'https://all.corp']\n");
  root.Write("d/a.example:5000/hosts.toml", "server = 'http://b.example:5000'\n");
  root.Write("d/c.example_5000_/hosts.toml", "skip_verify = true\n");
  root.Write("d/certs.example/ca.crt", "");
  CHECK(Endpoints(hosts, "quay.io/x") ==
        Lines{"mirror https://all.corp/v2 x ns=quay.io", "https://quay.io/v2 x own"});
  CHECK(Endpoints(hosts, "a.example:5000/x") == Lines{"http://b.example:5000/v2 x plain"});
  CHECK(Endpoints(hosts, "c.example:5000/x") ==
        Lines{"https://c.example:5000/v2 x own unverified"});
  CHECK(Endpoints(hosts, "certs.example/x") == Lines{"https://certs.example/v2 x own"});
}

TEST_CASE("What is wrong in hosts.toml is told with file and line, and concerns its host alone") {
  const crisp::testing::TestRoot root;
  http::Client client;
  Hosts hosts(client, {.hosts_dir = root / "d"});
  const auto message = [&](const std::string& text) {
    root.Write("d/a.example/hosts.toml", text);
    const auto endpoints = hosts.Find(*ref::Parse("a.example/x"));
    CHECK(endpoints.code() == Code::kFailedPrecondition);
    const std::string& all = endpoints.status().message();
    CHECK(all.starts_with(root / "d/a.example/hosts.toml:"));
    return all.substr(all.find("toml:") + 5);
  };
  CHECK(message("[host\n").starts_with("1: "));
  CHECK(message("\n[host.'ftp://x']\n").starts_with("2: 'ftp://x': "));
  CHECK(message("[host.'https://x']\ncapabilities = ['fly']") ==
        "2: capabilities: 'fly' is none of pull, resolve, push");
  CHECK(message("[host.'https://x']\nskip_verify = 'yes'") ==
        "2: skip_verify: true or false is expected");
  CHECK(message("[host.'https://x']\nca = 5").starts_with("2: ca: "));
  CHECK(message("[host.'https://x']\nclient = [['a', 'b', 'c']]").starts_with("2: client: "));
  CHECK(message("[host.'https://x']\nclient = 5").starts_with("2: client: "));
  CHECK(message("host = 5").starts_with("1: host: a table is expected"));
  CHECK(message("[host]\nx = 5").starts_with("2: x: a table is expected"));
  CHECK(message("server = 'https://x?y'").find("has a query") != std::string::npos);
  CHECK(Endpoints(hosts, "b.example/x") == Lines{"https://b.example/v2 x own"});
}

TEST_CASE("registries.conf goes before hosts.toml where it speaks of the image") {
  const crisp::testing::TestRoot root;
  root.Write("d/a.example/hosts.toml", "[host.'https://toml.corp']\n");
  const std::string conf = root.Write("registries.conf", R"([[registry]]
prefix = "a.example/team"
location = "a.example/team"
[[registry.mirror]]
location = "conf.corp/team"
insecure = true
)");
  http::Client client;
  Hosts hosts(client, {.registries_conf = conf, .hosts_dir = root / "d"});
  CHECK(Endpoints(hosts, "a.example/x") ==
        Lines{"mirror https://toml.corp/v2 x ns=a.example", "https://a.example/v2 x own"});
  CHECK(Endpoints(hosts, "a.example/team/x") ==
        Lines{"mirror https://conf.corp/v2 team/x unverified plain",
              "https://a.example/v2 team/x own"});
}

TEST_CASE("certs.d gives authorities and a client certificate, and complains of halves") {
  const crisp::testing::TestRoot root;
  root.Write("2/a.example:5000/ca.crt", "");
  root.Write("2/a.example:5000/more.crt", "");
  root.Write("2/a.example:5000/b.cert", "");
  root.Write("2/a.example:5000/b.key", "");
  root.Write("2/half.example/a.cert", "");
  root.Write("2/other.example/a.key", "");
  root.Write("2/none.example/readme", "");
  const std::vector<std::string> dirs = {root / "1", root / "2"};
  const auto certs = CertsFor(dirs, "a.example:5000");
  REQUIRE(certs.ok());
  REQUIRE(*certs);
  CHECK((*certs)->ca_files.size() == 2);
  CHECK((*certs)->client_cert == root / "2/a.example:5000/b.cert");
  CHECK((*certs)->client_key == root / "2/a.example:5000/b.key");
  const std::string key = (*certs)->key;
  root.Write("2/a.example:5000/more.crt", "new");
  CHECK((*CertsFor(dirs, "a.example:5000"))->key != key);
  CHECK(*CertsFor(dirs, "a.example") == nullptr);
  CHECK(*CertsFor(dirs, "none.example") == nullptr);
  CHECK(*CertsFor(dirs, "..") == nullptr);
  CHECK(CertsFor(dirs, "half.example").code() == Code::kFailedPrecondition);
  CHECK(CertsFor(dirs, "other.example").status().message().find("a.key: has no ") !=
        std::string::npos);
}

TEST_CASE("Plain HTTP is believed of who answers so, and not for ever") {
  http::testing::RawServer server([](const std::string&) {
    return http::testing::RawServer::Answer{"HTTP/1.1 200 OK\r\n\r\n"};
  });
  http::Client client;
  crisp::testing::ManualClock clock;
  Hosts hosts(client, {}, clock);
  const auto settle = [&] {
    Endpoint endpoint = hosts.Find(*ref::Parse(server.HostPort() + "/x"))->front();
    const Status status = hosts.Settle(CallContext::Background(std::chrono::seconds(30)), endpoint);
    return status.ok() ? endpoint.root.scheme : CodeName(status.code());
  };
  server.hangs_up_on_tls = true;
  CHECK(settle() == "UNAVAILABLE");
  server.hangs_up_on_tls = false;
  CHECK(settle() == "http");
  server.hangs_up_on_tls = true;
  CHECK(settle() == "http");
  clock.Advance(std::chrono::minutes(6));
  CHECK(settle() == "UNAVAILABLE");
  server.hangs_up_on_tls = false;
  CHECK(settle() == "http");
  hosts.Doubt(hosts.Find(*ref::Parse(server.HostPort() + "/x"))->front());
  server.hangs_up_on_tls = true;
  CHECK(settle() == "UNAVAILABLE");
}

TEST_CASE("An insecure entry is one host's") {
  const crisp::testing::TestRoot root;
  http::Client client;
  Hosts hosts(client, {.insecure = {"Plain.corp:5000", "any.corp"},
                       .registries_conf = root.Write("r.conf", R"([[registry]]
prefix = "docker.io"
location = "conf.corp/hub"
insecure = true
)")});
  for (const char* host : {"plain.corp:5000", "any.corp:1", "conf.corp:443", "conf.corp"})
    CHECK(hosts.IsInsecure(host));
  for (const char* host : {"plain.corp:5001", "plain.corp", "other.corp", "auth.conf.corp"})
    CHECK_FALSE(hosts.IsInsecure(host));
}

TEST_CASE("Each endpoint gets its own credentials, never another's") {
  const crisp::testing::TestRoot root;
  const std::string file = root.Write(
      "auth.json", R"({"auths": {"m.corp": {"auth": "bTpw"}, "docker.io": {"auth": "aHViOnA="}}})");
  const std::string conf = root.Write("registries.conf", R"([[registry]]
location = "docker.io"
[[registry.mirror]]
location = "m.corp"
[[registry.mirror]]
location = "n.corp"
)");
  http::Client client;
  Hosts hosts(client, {.registries_conf = conf, .auth_files = {file}});
  const auto endpoints = hosts.Find(*ref::Parse("busybox"));
  REQUIRE(endpoints->size() == 3);
  const auto shown = [&](const Credentials& given) {
    Lines lines;
    for (const Endpoint& each : *endpoints) {
      const auto found = hosts.CredentialsFor(Soon(), each, given);
      lines.push_back(found->credentials.username + " by " + found->source);
    }
    return lines;
  };
  CHECK(shown({}) == Lines{"m by " + file, " by none", "hub by " + file});
  CHECK(shown({.username = "caller"}) ==
        Lines{"m by " + file, " by none", "caller by the pull request"});
  CHECK(shown({.username = "caller", .scope = "n.corp"}) ==
        Lines{"m by " + file, "caller by the pull request", "hub by " + file});
  CHECK(shown({.username = "caller", .scope = "elsewhere.example"}) ==
        Lines{"m by " + file, " by none", "hub by " + file});
}

}  // namespace
}  // namespace crisp::imaged
