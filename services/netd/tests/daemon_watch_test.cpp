// The program itself, while the network's files change under it. Needs root.
#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "libs/os/namespaces.h"
#include "services/netd/tests/daemon_node.h"

namespace crisp::netd {
namespace {

/// Nothing is looked at but when something has changed.
constexpr const char* kByEventOnly = "  status_interval_seconds: 3600\n  status_grace_seconds: 0\n";

bool Becomes(const Node& node, const std::string& network) {
  return Node::Until([&] { return node.Ready().network_name() == network; });
}

bool BecomesUnready(const Node& node, const std::string& words) {
  v1::StatusResponse status;
  const bool became = Node::Until([&] {
    status = node.Ready();
    return !status.ready() && status.message().find(words) != std::string::npos;
  });
  INFO(status.ShortDebugString());
  CHECK(status.reason() == "NetworkPluginNotReady");
  return became;
}

TEST_CASE("Files that come, change and break are noticed by their events alone") {
  const Node node(kByEventOnly);
  node.Conf();
  REQUIRE(Becomes(node, "t"));
  const std::string other =
      node.root().Write("other", R"({"cniVersion": "1.0.0", "name": "other", "type": "fake"})");
  REQUIRE(os::Rename(other, node.root() / "conf/05-other.conf").ok());
  CHECK(Becomes(node, "other"));
  REQUIRE(os::RemoveFile(node.root() / "conf/05-other.conf").ok());
  CHECK(Becomes(node, "t"));
  node.root().Write("conf/10-t.conf", R"({"cniVersion": "1.0.0", "name": "t", "type": )");
  CHECK(BecomesUnready(node, "10-t.conf"));
  node.Conf();
  CHECK(Becomes(node, "t"));
}

TEST_CASE("A directory that is moved away, comes back, and is made anew is followed") {
  const Node node(kByEventOnly);
  const std::string conf = node.root() / "conf";
  node.Conf();
  REQUIRE(Becomes(node, "t"));
  // One more, so that no look is still to come.
  const std::string named =
      node.root().Write("named", R"({"cniVersion": "1.0.0", "name": "m", "type": "fake"})");
  REQUIRE(os::Rename(named, conf + "/05-m.conf").ok());
  REQUIRE(Becomes(node, "m"));
  REQUIRE(os::Rename(conf, node.root() / "away").ok());
  CHECK(BecomesUnready(node, "no network configuration"));
  REQUIRE(os::Rename(node.root() / "away", conf).ok());
  CHECK(Becomes(node, "m"));
  REQUIRE(os::RemoveTree(conf).ok());
  node.root().Write("conf/10-n.conf", R"({"cniVersion": "1.0.0", "name": "n", "type": "fake"})");
  CHECK(Becomes(node, "n"));
}

TEST_CASE("A plugin's file in the folder of a network is noticed by its event alone") {
  const Node node(kByEventOnly);
  // A better network than the one that is there, but for its folder.
  node.Conf();
  node.root().Write("conf/05-n.conflist", R"({"cniVersion": "1.0.0", "name": "n"})");
  REQUIRE(Becomes(node, "t"));
  node.root().Write("conf/n/10-fake.conf", R"({"type": "fake"})");
  CHECK(Becomes(node, "n"));
  node.root().Write("conf/n/20-absent.conf", R"({"type": "absent"})");
  CHECK(BecomesUnready(node, "'absent'"));
  REQUIRE(os::RemoveFile(node.root() / "conf/n/20-absent.conf").ok());
  CHECK(Becomes(node, "n"));
  REQUIRE(os::RemoveTree(node.root() / "conf/n").ok());
  CHECK(Becomes(node, "t"));
  node.root().Write("conf/n/10-fake.conf", R"({"type": "fake"})");
  CHECK(Becomes(node, "n"));
}

TEST_CASE("A plugin that becomes sick without an event is noticed in its time") {
  const Node node("  status_interval_seconds: 1\n  status_grace_seconds: 0\n");
  node.Plugin("", fmt::format(R"(test ! -e {}/sick || {{ echo '{{"msg": "no route"}}'; exit 1; }})",
                              node.root().path()));
  node.Conf("1.1.0");
  REQUIRE(Becomes(node, "t"));
  node.root().Write("sick", "");
  CHECK(BecomesUnready(node, "plugin fake: STATUS failed: no route"));
  REQUIRE(os::RemoveFile(node.root() / "sick").ok());
  CHECK(Becomes(node, "t"));
}

TEST_CASE("Many changes at once are one look, or few") {
  const Node node(kByEventOnly);
  node.Conf("1.1.0");
  REQUIRE(Becomes(node, "t"));
  const int before = node.Count("STATUS");
  constexpr int kWrites = 100;
  for (int i = 0; i < kWrites; ++i) node.root().Write(fmt::format("conf/{}.txt", i), "");
  node.root().Write("conf/05-last.conf",
                    R"({"cniVersion": "1.1.0", "name": "last", "type": "fake"})");
  CHECK(Becomes(node, "last"));
  CHECK(node.Count("STATUS") - before < kWrites / 4);
}

TEST_CASE("The network that the settings name is the one, also when it is not the first") {
  const Node node("  default_network: named\n");
  node.Conf();
  CHECK(BecomesUnready(node, "'named'"));
  node.root().Write("conf/20-named.conf",
                    R"({"cniVersion": "1.0.0", "name": "named", "type": "fake"})");
  CHECK(Becomes(node, "named"));
}

TEST_CASE("An nft that hangs keeps nobody from noticing the network") {
  const testing::TestRoot root;
  // A host of its own: there are host ports to be opened.
  auto pins = os::NamespacePin::Create({{os::NamespaceKind::kNet, root / "host"}});
  REQUIRE(pins.ok());
  const auto inside = [&root] {
    const std::string nft =
        root.Script("nft", fmt::format("while test -e {}; do sleep 0.1; done", root / "hang"));
    Node node("  status_grace_seconds: 0\n  hostports: builtin\n  nft: " + nft + "\n");
    node.Conf();
    v1::AttachRequest request;
    request.set_pod_id(kPod);
    request.mutable_config()->add_port_mappings()->set_container_port(80);
    request.mutable_config()->mutable_port_mappings(0)->set_host_port(39196);
    CHECK(node.Attach(Call(), std::move(request)).ok());
    root.Write("hang", "");
    CHECK(node.Kill(SIGKILL) == 137);
    node.Start();
    CHECK(Becomes(node, "t"));
    CHECK(os::RemoveTree(node.root() / "conf").ok());
    CHECK(BecomesUnready(node, "no network configuration"));
    node.Conf();
    CHECK(Becomes(node, "t"));
    CHECK(os::RemoveFile(root / "hang").ok());
    CHECK(node.Detach().ok());
    return Status::Ok();
  };
  CHECK(os::RunInNamespace(root / "host", inside).ok());
}

}  // namespace
}  // namespace crisp::netd
