#include "services/imaged/registry/registries_conf.h"

#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "libs/testing/test_root.h"

namespace crisp::imaged {
namespace {

RegistriesConf Conf(std::string_view text) {
  Result<RegistriesConf> conf = RegistriesConf::Parse(text, "r.conf");
  REQUIRE(conf.status().message() == "");
  return *std::move(conf);
}

/// "mirror host/repository", joined.
std::string Places(const RegistriesConf& conf, const std::string& image) {
  const auto places = conf.PlacesOf(*ref::Parse(image));
  if (!places.ok()) return "error: " + places.status().message();
  std::string text;
  for (const Place& each : *places)
    text += fmt::format("{}{}{}{}", text.empty() ? "" : ", ", each.mirror ? "mirror " : "",
                        each.insecure ? "insecure " : "", each.Location());
  return text;
}

std::string Names(const RegistriesConf& conf, const std::string& image) {
  const auto names = conf.NamesOf(image);
  if (!names.ok()) return "error: " + names.status().message();
  std::string text;
  for (const ref::ImageRef& each : *names) text += (text.empty() ? "" : ", ") + each.ToString();
  return text;
}

constexpr std::string_view kDigest =
    "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

TEST_CASE("Mirrors come first, then the registry at its place") {
  const RegistriesConf conf = Conf(R"(
    [[registry]]
    prefix = "docker.io"
    location = "hub.corp:5000/proxy/"
    insecure = true
    [[registry.mirror]]
    location = "m1.corp"
    [[registry.mirror]]
    location = "m2.corp/hub"
    insecure = true
    pull-from-mirror = "digest-only"
    [[registry.mirror]]
    location = "m3.corp"
    pull-from-mirror = "tag-only"
  )");
  CHECK(Places(conf, "busybox") ==
        "mirror m1.corp/library/busybox, mirror m3.corp/library/busybox, "
        "insecure hub.corp:5000/proxy/library/busybox");
  CHECK(Places(conf, "busybox" + std::string(kDigest)) ==
        "mirror m1.corp/library/busybox, mirror insecure m2.corp/hub/library/busybox, "
        "insecure hub.corp:5000/proxy/library/busybox");
  CHECK(Places(conf, "quay.io/x:1") == "quay.io/x");
}

TEST_CASE("The longest prefix that fits decides") {
  const RegistriesConf conf = Conf(R"(
    [[registry]]
    location = "example.com"
    [[registry]]
    prefix = "example.com/team"
    location = "team.corp"
    [[registry]]
    prefix = "Example.com/team/bad"
    blocked = true
    [[registry]]
    prefix = "example.com/team/app:v1"
    location = "special.corp/app"
    [[registry]]
    prefix = "*.wild.com"
    location = "wild.corp"
    [[registry]]
    prefix = "*.kept.com"
    insecure = true
  )");
  CHECK(Places(conf, "example.com/x") == "example.com/x");
  CHECK(Places(conf, "example.com/team/app") == "team.corp/app");
  CHECK(Places(conf, "example.com/team/app:v1") == "special.corp/app");
  CHECK(Places(conf, "example.com/team/app:v11") == "team.corp/app");
  CHECK(Places(conf, "example.com/teams/app") == "example.com/teams/app");
  CHECK(Places(conf, "example.com/team/bad:1") ==
        "error: example.com/team/bad:1: the registry example.com/team/bad is blocked by r.conf:7");
  CHECK(Places(conf, "example.com/team/bad/deeper").starts_with("error: "));
  CHECK(Places(conf, "EXAMPLE.com/team/bad").starts_with("error: "));
  // Another port is another registry, another host too.
  CHECK(Places(conf, "example.com:5000/team/bad") == "example.com:5000/team/bad");
  CHECK(Places(conf, "example.comx/team/bad") == "example.comx/team/bad");
  CHECK(Places(conf, "a.wild.com/x") == "wild.corp/x");
  CHECK(Places(conf, "a.b.wild.com/x/y") == "wild.corp/x/y");
  CHECK(Places(conf, "wild.com/x") == "wild.com/x");
  CHECK(Places(conf, "a.wild.com.evil.org/x") == "a.wild.com.evil.org/x");
  CHECK(Places(conf, "other.org/a.wild.com/x") == "other.org/a.wild.com/x");
  CHECK(Places(conf, "a.kept.com:5000/x") == "insecure a.kept.com:5000/x");
}

TEST_CASE("Short names: aliases, search registries and how strict they are") {
  CHECK(Names(RegistriesConf(), "busybox") == "docker.io/library/busybox:latest");
  RegistriesConf conf = Conf(R"(
    unqualified-search-registries = ["quay.io", "docker.io"]
    [aliases]
    "fedora" = "registry.fedoraproject.org/fedora"
    "team/app" = "example.com/apps/app"
  )");
  CHECK(Names(conf, "busybox:1") == "quay.io/busybox:1, docker.io/library/busybox:1");
  CHECK(Names(conf, "fedora") == "registry.fedoraproject.org/fedora:latest");
  CHECK(Names(conf, "fedora:39") == "registry.fedoraproject.org/fedora:39");
  CHECK(Names(conf, "team/app" + std::string(kDigest)) ==
        "example.com/apps/app" + std::string(kDigest));
  CHECK(Names(conf, "ghcr.io/fedora") == "ghcr.io/fedora:latest");
  CHECK(Names(conf, "localhost/fedora") == "localhost/fedora:latest");
  CHECK(Names(conf, "localhost:5000/fedora") == "localhost:5000/fedora:latest");
  CHECK(Names(conf, "UPPER").starts_with("error: "));
  conf.short_names = RegistriesConf::ShortNames::kEnforcing;
  CHECK(Names(conf, "busybox").find("names no registry, and there are 2") != std::string::npos);
  CHECK(Names(conf, "fedora") == "registry.fedoraproject.org/fedora:latest");
  conf.short_names = RegistriesConf::ShortNames::kDisabled;
  CHECK(Names(conf, "fedora") == "quay.io/fedora:latest, docker.io/library/fedora:latest");
  conf.short_names = RegistriesConf::ShortNames::kEnforcing;
  conf.search = std::vector<std::string>{"quay.io"};
  CHECK(Names(conf, "busybox") == "quay.io/busybox:latest");
}

TEST_CASE("Version 1's tables mean the same") {
  const RegistriesConf conf = Conf(R"(
    [registries.search]
    registries = ['one.example', 'two.example']
    [registries.insecure]
    registries = ['plain.example:5000', 'both.example']
    [registries.block]
    registries = ['bad.example', 'both.example']
  )");
  CHECK(Names(conf, "x") == "one.example/x:latest, two.example/x:latest");
  CHECK(Places(conf, "plain.example:5000/x") == "insecure plain.example:5000/x");
  CHECK(Places(conf, "bad.example/x").find("is blocked by r.conf") != std::string::npos);
  CHECK(Places(conf, "both.example/x").find("is blocked") != std::string::npos);
}

TEST_CASE("What is wrong in registries.conf is told with file and line") {
  const auto message = [](std::string_view text) {
    const auto conf = RegistriesConf::Parse(text, "r.conf");
    return conf.ok() ? "ok" : conf.status().message();
  };
  CHECK(message("[[registry]]\nlocation = 5") == "r.conf:2: location: a string is expected");
  CHECK(message("[[registry]]\nlocation = 'https://x'").starts_with("r.conf:2: location: "));
  CHECK(message("\n[[registry]]\ninsecure = true").starts_with("r.conf:2: prefix: "));
  CHECK(message("[[registry]]\nprefix = 'a.*.com'\nlocation='x'").starts_with("r.conf:2: "));
  CHECK(message("[[registry]]\nlocation = '*.com'").starts_with("r.conf:2: location: has a *"));
  CHECK(message("[[registry]]\nlocation = 'a'\n[[registry]]\nprefix = 'a'\nlocation='b'")
            .starts_with("r.conf:4: prefix: 'a' is there twice"));
  CHECK(message("[[registry]]\nlocation = 'a'\n[[registry.mirror]]\ninsecure = true")
            .starts_with("r.conf:3: location: a mirror needs a location"));
  CHECK(message("[[registry]]\nlocation = 'a'\n[[registry.mirror]]\nlocation = 'b'\n"
                "pull-from-mirror = 'some'") ==
        "r.conf:5: pull-from-mirror: is all, digest-only or tag-only");
  CHECK(message("[[registry]]\nlocation = 'a'\nmirror-by-digest-only = true\n[[registry.mirror]]\n"
                "location = 'b'\npull-from-mirror = 'all'")
            .starts_with("r.conf:6: pull-from-mirror: excludes"));
  CHECK(
      message("[[registry]]\nlocation = 'a'\npull-from-mirror = 'all'").starts_with("r.conf:3: "));
  CHECK(message("short-name-mode = 'maybe'").starts_with("r.conf:1: short-name-mode: "));
  CHECK(message("[aliases]\n'x' = 'y'").starts_with("r.conf:2: x: "));
  CHECK(message("[aliases]\n'x' = 'q.io/y:tag'").starts_with("r.conf:2: x: "));
  CHECK(message("[aliases]\n'q.io/x' = 'q.io/y'").starts_with("r.conf:2: q.io/x: "));
  CHECK(message("unqualified-search-registries = ['https://x']").starts_with("r.conf:1: "));
  CHECK(message("[registries.search]\nregistries = ['x']\n[[registry]]\nlocation = 'a'")
            .find("version 1") != std::string::npos);
  CHECK(message("registry = 5") == "r.conf:1: registry: an array of tables is expected");
  CHECK(message("new-thing = 5") == "ok");
  CHECK(Conf("new-thing = 5").unknown_keys == std::vector<std::string>{"r.conf: new-thing"});
}

TEST_CASE("Drop-ins come over the file in the order of their names") {
  const crisp::testing::TestRoot root;
  const std::string path = root.Write("registries.conf", R"(
    unqualified-search-registries = ["one.example"]
    [[registry]]
    location = "a.example"
    blocked = true
    [[registry]]
    location = "b.example"
    blocked = true
    [aliases]
    x = "q.io/x"
    y = "q.io/y"
  )");
  root.Write("registries.conf.d/20.conf", "[[registry]]\nlocation = 'a.example'\n");
  root.Write("registries.conf.d/10.conf",
             "unqualified-search-registries = []\nshort-name-mode = 'enforcing'\n"
             "[[registry]]\nlocation = 'a.example'\ninsecure = true\n"
             "[aliases]\nx = ''\ny = 'z.io/y'\n");
  root.Write("registries.conf.d/30.txt", "not ours");
  const auto conf = RegistriesConf::Load(path);
  REQUIRE(conf.status().message() == "");
  CHECK(Places(*conf, "a.example/x") == "a.example/x");
  CHECK(Places(*conf, "b.example/x").starts_with("error: "));
  CHECK(Names(*conf, "x") == "docker.io/library/x:latest");
  CHECK(Names(*conf, "y") == "z.io/y:latest");
  CHECK(RegistriesConf::Load(root / "absent")->registries.empty());
  root.Write("registries.conf.d/40.conf", "oops");
  CHECK(RegistriesConf::Load(path).status().message().find("registries.conf.d/40.conf:1: ") !=
        std::string::npos);
}

TEST_CASE("The file is looked at again, and a broken one does not replace the good one") {
  const crisp::testing::TestRoot root;
  const std::string path = root / "registries.conf";
  RegistriesConfFile file(path);
  CHECK(Places(**file.Current(), "x.example/y") == "x.example/y");
  root.Write("registries.conf", "[[registry]]\nprefix = 'x.example'\nlocation = 'm.example'\n");
  CHECK(Places(**file.Current(), "x.example/y") == "m.example/y");
  root.Write("registries.conf.d/1.conf", "[[registry]]\nlocation = 'x.example'\nblocked = true\n");
  CHECK(Places(**file.Current(), "x.example/y").starts_with("error: "));
  root.Write("registries.conf.d/1.conf", "[[registry]\n");
  CHECK(Places(**file.Current(), "x.example/y").starts_with("error: "));
  CHECK(os::RemoveFile(root / "registries.conf.d/1.conf").ok());
  CHECK(Places(**file.Current(), "x.example/y") == "m.example/y");

  root.Write("registries.conf", "[[registry]\n");
  RegistriesConfFile fresh(path);  // a start with a broken file
  CHECK(fresh.Current().code() == Code::kFailedPrecondition);
  CHECK(fresh.Current().status().message().find("registries.conf:1: ") != std::string::npos);
  root.Write("registries.conf", "");
  CHECK(fresh.Current().ok());
  CHECK(RegistriesConfFile("").Current().ok());
}

TEST_CASE("Short names that other tools remember count where the configuration says nothing") {
  const crisp::testing::TestRoot root;
  root.Write("registries.conf", "[aliases]\nmine = 'quay.io/mine'\n");
  root.Write("registries.conf.d/50.conf", "[aliases]\ndropped = ''\nboth = 'quay.io/ours'\n");
  RegistriesConfFile file(root / "registries.conf", root / "cache/short-name-aliases.conf");
  const auto name = [&file](const char* image) {
    const auto conf = file.Current();
    REQUIRE(conf.ok());
    return (*conf)->NamesOf(image)->front().ToString();
  };
  CHECK(name("theirs") == "docker.io/library/theirs:latest");
  root.Write("cache/short-name-aliases.conf",
             "[aliases]\ntheirs = 'quay.io/theirs'\nboth = 'quay.io/no'\ndropped = 'quay.io/no'\n");
  CHECK(name("theirs") == "quay.io/theirs:latest");
  CHECK(name("both") == "quay.io/ours:latest");
  CHECK(name("dropped") == "docker.io/library/dropped:latest");
  CHECK(name("mine") == "quay.io/mine:latest");
  root.Write("cache/short-name-aliases.conf", "[aliases\nis broken");
  CHECK(name("theirs") == "docker.io/library/theirs:latest");
  CHECK(name("mine") == "quay.io/mine:latest");
  // Without a registries.conf, too.
  root.Write("cache/short-name-aliases.conf", "[aliases]\ntheirs = 'quay.io/theirs'\n");
  RegistriesConfFile alone("", root / "cache/short-name-aliases.conf");
  CHECK((*alone.Current())->NamesOf("theirs")->front().ToString() == "quay.io/theirs:latest");
  CHECK((*RegistriesConfFile("").Current())->NamesOf("x")->size() == 1);
}

}  // namespace
}  // namespace crisp::imaged
