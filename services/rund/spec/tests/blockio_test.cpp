#include "services/rund/spec/blockio.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "services/rund/spec/tests/fixture.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

/// A disk of this machine.
struct Disk {
  Disk() {
    for (const std::string& name : os::ListDir("/sys/block").value_or({})) {
      struct stat info {};
      path = "/dev/" + name;
      if (stat(path.c_str(), &info) != 0) continue;
      number = {{"major", major(info.st_rdev)}, {"minor", minor(info.st_rdev)}};
      return;
    }
    FAIL("this machine has no block device");
  }
  json With(const char* key, std::uint64_t value) const {
    json entry = number;
    entry[key] = value;
    return json::array({entry});
  }
  std::string path;
  json number;
};

/// A container whose pod asks for the class "slow" of this file.
struct Fixture : SpecFixture {
  explicit Fixture(const std::string& classes) {
    defaults.blockio_config_file = root.Write("blockio.yaml", classes);
    defaults.host.controllers.insert("blkio");
    (*sandbox.mutable_annotations())["blockio.resources.beta.kubernetes.io/pod"] = "slow";
  }
  json BlockIo() const {
    return Build().value().spec["linux"]["resources"].value("blockIO", json());
  }
};

TEST_CASE("A container is in the class that its annotations name, the more special one first") {
  SpecFixture f;
  const auto of = [&f] { return BlockioClassOf(f.config, f.sandbox); };
  CHECK(of().empty());
  auto& pod = *f.sandbox.mutable_annotations();
  pod["blockio.resources.beta.kubernetes.io/pod"] = "pod";
  pod["blockio.resources.beta.kubernetes.io/container.other"] = "other";
  CHECK(of() == "pod");
  pod["blockio.resources.beta.kubernetes.io/container.main"] = "named";
  CHECK(of() == "named");
  (*f.config.mutable_annotations())["io.kubernetes.cri.blockio-class"] = "own";
  CHECK(of() == "own");
}

TEST_CASE("Weights and limits of a class are those of the disks that its patterns match") {
  const Disk disk;
  Fixture f("");
  REQUIRE(os::Symlink(disk.path, f.root / "by-id-ssd").ok());
  f.root.Write("by-id-file", "no device");
  f.defaults.blockio_config_file = f.root.Write("blockio.yaml", R"(
Classes:
  fast: []
  slow:
    - Weight: 80
    - Devices: [)" + disk.path + R"(]
      ThrottleReadBps: 50M
      ThrottleWriteIOPS: 5k
      Weight: 50
    - Devices: [)" + (f.root / "by-id-*") + ", " + (f.root / "nothing") +
                                                                    R"(]
      ThrottleReadBps: 1Mi
      ThrottleWriteBps: 4096
)");
  CHECK(f.BlockIo() == json{{"weight", 80},
                            {"weightDevice", disk.With("weight", 50)},
                            {"throttleReadBpsDevice", disk.With("rate", 1048576)},
                            {"throttleWriteBpsDevice", disk.With("rate", 4096)},
                            {"throttleWriteIOPSDevice", disk.With("rate", 5000)}});
  const auto notes = f.Build()->notes;
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].find("nothing") != std::string::npos);
  (*f.config.mutable_annotations())["io.kubernetes.cri.blockio-class"] = "fast";
  CHECK(f.BlockIo().is_null());
}

TEST_CASE("A class that cannot be had is an error that names it") {
  Fixture f("Classes: {fast: [{Weight: 100}]}");
  const auto message = [&f] {
    const Status status = f.Build().status();
    CHECK(status.code() == Code::kInvalidArgument);
    return std::string(status.message());
  };
  CHECK(message().find("\"slow\"") != std::string::npos);
  CHECK(message().find("blockio.yaml") != std::string::npos);
  f.root.Write("blockio.yaml", "Classes: {slow: [{Weight: 100}]}");  // counts at once
  CHECK(f.BlockIo() == json{{"weight", 100}});
  f.defaults.host.controllers.erase("blkio");
  CHECK(message().find("controller") != std::string::npos);
  f.defaults.host.cgroup_v2 = true;
  f.defaults.host.controllers.insert("io");
  CHECK(f.BlockIo() == json{{"weight", 100}});
  f.defaults.blockio_config_file.clear();
  CHECK(message().find("rund.blockio_config_file") != std::string::npos);
}

TEST_CASE("A file of classes with a mistake is refused by file, class and field") {
  const testing::TestRoot root;
  const auto refused = [&root](const std::string& text, const std::string& what) {
    const auto loaded = LoadBlockioClasses(root.Write("b.yaml", text));
    INFO(text << ": " << loaded.status().ToString());
    return loaded.code() == Code::kInvalidArgument &&
           loaded.status().message().find("b.yaml") != std::string::npos &&
           loaded.status().message().find(what) != std::string::npos;
  };
  CHECK(refused("Classes: {a: [{Weight: 5}]}", "Classes.a[0]: Weight: 5"));
  CHECK(refused("Classes: {a: [{Weight: 1001}]}", "1001"));
  CHECK(refused("Classes: {a: [{}, {Wieght: 5}]}", "Classes.a[1]: \"Wieght\""));
  CHECK(refused("Classes: {a: [{ThrottleReadBps: 1M}]}", "Devices"));
  CHECK(refused("Classes: {a: [{Devices: [/dev/a], ThrottleReadBps: fast}]}", "ThrottleReadBps"));
  CHECK(refused("Classes: {a: [{Devices: [/dev/a], ThrottleReadBps: 99999999T}]}", "T"));
  CHECK(refused("Classes: {a: [{Devices: [dev/a]}]}", "absolute"));
  CHECK(refused("Classes: {a: {Weight: 5}}", "Classes.a"));
  CHECK(refused("Klasses: {}", "Klasses"));
  CHECK(refused("[", ""));
  CHECK(LoadBlockioClasses(root / "absent").code() == Code::kNotFound);
  CHECK(LoadBlockioClasses(root.Write("b.yaml", "Classes:\n")).value().empty());
}

}  // namespace
}  // namespace crisp::rund
