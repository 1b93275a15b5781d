#include "libs/settings/settings.h"

#include <cstdlib>

#include "libs/os/files.h"
#include "libs/testing/test_root.h"

namespace crisp::settings {
namespace {

std::string ErrorOf(const std::string& yaml) {
  testing::TestRoot root;
  const auto loaded = Load(root.Write("c.yaml", yaml));
  return loaded.ok() ? "" : loaded.status().message().substr(root.path().size() + 1);
}

}  // namespace

TEST_CASE("the defaults are valid and resolve the paths that follow from the roots") {
  CHECK(Settings().Validate().ok());
  Settings settings;
  settings.run_root = "/r";
  settings.state_root = "/s";
  settings = settings.Resolved();
  CHECK(settings.crid.socket == "/r/crisp.sock");
  CHECK(settings.Socket("rund", "1") == "/r/rund/1.sock");
  CHECK(settings.MetricsSocket("rund", "1") == "/r/rund/1.metrics.sock");
  CHECK(settings.RuntimeRoot("crun", "2").value() == "/r/rund/2/runtimes/crun");
  CHECK(settings.RuntimeRoot("nope", "2").code() == Code::kNotFound);
}

TEST_CASE("storage drivers of older runtimes are refused with what replaced them") {
  for (const char* driver : {"aufs", "devicemapper"}) {
    const std::string error = ErrorOf(fmt::format("imaged:\n  driver: {}\n", driver));
    CHECK(error.find("imaged.driver") != std::string::npos);
    CHECK(error.find("overlay has replaced it") != std::string::npos);
  }
  CHECK(ErrorOf("imaged:\n  driver: zfs\n").find("is not supported: use overlay") !=
        std::string::npos);
  CHECK(ErrorOf("imaged:\n  driver: disk\n").find("no driver") != std::string::npos);
  for (const char* driver : {"overlay", "erofs", "btrfs", "vfs"})
    CHECK(ErrorOf(fmt::format("imaged:\n  driver: {}\n", driver)).empty());
  CHECK(ErrorOf("imaged:\n  overlay_options: [nodev, xino=off]\n").empty());
  CHECK(ErrorOf("imaged:\n  overlay_options: [metacopy=on]\n").find("metacopy=on") !=
        std::string::npos);
}

TEST_CASE("the shipped file is the commented dump of the defaults") {
  const std::string path = CRISP_SOURCE_DIR "/deploy/config/crisp.yaml";
  if (std::getenv("CRISP_ACCEPT") != nullptr) {
    REQUIRE(os::WriteFile(path, DumpCommented(Settings())).ok());
  }
  CHECK(os::ReadFile(path).value() == DumpCommented(Settings()));
  const auto loaded = Load(path);
  INFO(loaded.status().ToString());
  REQUIRE(loaded.ok());
  CHECK(Dump(*loaded) == Dump(Settings().Resolved()));
}

TEST_CASE("the reference has each key with default, unit, values and cost") {
  const std::string text = Reference();
  CHECK(text.find("## crid\n\nThe front: the CRI socket.\n") != text.npos);
  CHECK(
      text.find("**crid.peer\\_wait\\_seconds**\n:   How long a call waits for a daemon that is "
                "restarting before it fails.\n\n    Default: 5. Unit: seconds. Values: 0 to 60. To "
                "change: restart.\n") != text.npos);
  CHECK(text.find("**rund.runtimes.\\<name\\>.path**\n:   The program.") != text.npos);
  // A key of the shipped file that the reference lacks would be seen here.
  const std::string shipped = Dump(Settings());
  const auto lines = [](const std::string& all, std::string_view part) {
    std::size_t count = 0;
    for (std::size_t at = all.find(part); at != all.npos; at = all.find(part, at + 1)) ++count;
    return count;
  };
  // Each key is a line; runtimes has two entries of a name and eight keys, which the
  // reference tells once.
  CHECK(lines(text, "\n**") + lines(text, "\n## ") + 1 == lines(shipped, "\n") - 10);
}

TEST_CASE("what is dumped is read back the same, other values too") {
  testing::TestRoot root;
  Settings settings;
  settings.run_root = "/r";
  settings.crid.peer_wait = std::chrono::seconds(9);
  settings.rund.runtimes = {{"kata", {"/opt/kata", "/k"}}};
  settings.rund.default_runtime = "kata";
  settings.rund.default_ulimits = {"nofile=1024:-1"};
  settings.imaged.insecure_registries = {"10.0.0.1:5000"};
  // Drop what the defaults have and the dump has not.
  const std::string dump = DumpCommented(settings) + "    runc: null\n    crun: null\n";
  const std::size_t at = dump.find("    kata:");
  REQUIRE(at != dump.npos);
  const std::string text =
      std::string(dump, 0, dump.size() - 30).insert(at, "    runc: null\n    crun: null\n");
  const auto loaded = Load(root.Write("c.yaml", text));
  INFO(loaded.status().ToString() << text);
  REQUIRE(loaded.ok());
  CHECK(Dump(*loaded) == Dump(settings.Resolved()));
}

TEST_CASE("conflicts are named") {
  CHECK(ErrorOf("rund: {default_runtime: kata}") ==
        "c.yaml:1: rund.default_runtime: 'kata' is none of rund.runtimes (crun, runc)");
  CHECK(ErrorOf("rund: {runtimes: {Kata: {path: /x}}}") ==
        "c.yaml:1: rund.runtimes.Kata: 'Kata' is no name (a-z, 0-9, '-', '.')");
  CHECK(ErrorOf("rund: {runtimes: {kata: {root: /x}}}") ==
        "c.yaml:1: rund.runtimes.kata.path: has no value");
  CHECK(ErrorOf("crid: {metrics_address: localhost}") ==
        "c.yaml:1: crid.metrics_address: 'localhost' is not host:port");
  CHECK(ErrorOf("rund: {streaming_address: localhost}") ==
        "c.yaml:1: rund.streaming_address: 'localhost' is not host:port");
  CHECK(ErrorOf("rund: {log_rate: 1000}") ==
        "c.yaml:1: rund.log_rate: 1000 bytes a second are too few: 0 or at least 1024");
  CHECK(ErrorOf("rund: {streaming_tls_cert: /c.pem}").find("without the other") !=
        std::string::npos);
  CHECK(ErrorOf("state_root: /x\nrun_root: /x\n") ==
        "c.yaml:1: state_root and run_root are the same");
  CHECK(ErrorOf("run_root: /" + std::string(90, 'x')).find("too long") != std::string::npos);
  CHECK(ErrorOf("netd:\n  bin_dirs: [bin]\n") ==
        "c.yaml:2: netd.bin_dirs: 'bin' is no absolute path");
  CHECK(ErrorOf("netd: {conf_dirs: []}") == "c.yaml:1: netd.conf_dirs: none is left");
  CHECK(ErrorOf("rund: {default_ulimits: [nofile=3]}").find("name=soft:hard") != std::string::npos);
  CHECK(ErrorOf("x: 1").starts_with("c.yaml:1: x: unknown key"));
  CHECK(ErrorOf("crid: {metrics_address: \"\"}").empty());
}

TEST_CASE("a conflict is named where the last file has the key, or else what is above it") {
  testing::TestRoot root;
  const std::string path = root.Write("c.yaml", "rund:\n  default_runtime: crun\n");
  root.Write("c.yaml.d/1.yaml", "rund:\n  runtimes:\n    crun: null\n");
  CHECK(Load(path).status().message().starts_with(path + ":2: rund.default_runtime"));
  root.Write("c.yaml.d/2.yaml", "\nrund:\n  default_runtime: crun\n");
  CHECK(Load(path).status().message().starts_with(path + ".d/2.yaml:3: rund.default_runtime"));
  root.Write("c.yaml", "");
  root.Write("c.yaml.d/1.yaml", "");
  root.Write("c.yaml.d/2.yaml", "rund:\n  runtimes: {runc: null}\n");
  CHECK(Load(path).status().message().starts_with(path + ".d/2.yaml:1: rund.default_runtime"));
}

TEST_CASE("changes are told by key, to those whom they concern") {
  const Settings before;
  Settings now;
  CHECK(Changes(before, now, "rund").empty());
  now.log.level = "debug";
  now.state_root = "/s";
  now.netd.default_network = "x";
  now.rund.runtimes.erase("crun");
  now.rund.runtimes["kata"].path = "/k";
  now.rund.runtimes["runc"].root = "/r";
  const auto told = [&](std::string_view service) {
    std::string text;
    for (const Change& change : Changes(before, now, service)) {
      text += change.key + (change.live ? "+ " : " ");
    }
    return text;
  };
  CHECK(told("crid") == "log.level+ state_root ");
  CHECK(told("netd") == "log.level+ netd.default_network state_root ");
  CHECK(told("rund") ==
        "log.level+ rund.runtimes.crun+ rund.runtimes.kata+ rund.runtimes.runc.root state_root ");
}

TEST_CASE("the fingerprint is that of the files") {
  testing::TestRoot root;
  const std::string path = root.Write("c.yaml", "rund: {default_runtime: crun}\n");
  const std::string first = LoadFingerprinted(path)->fingerprint;
  CHECK(LoadFingerprinted(path)->fingerprint == first);
  root.Write("c.yaml.d/1.yaml", "");
  CHECK(LoadFingerprinted(path)->fingerprint != first);
}

TEST_CASE("only the default path may be absent") {
  CHECK(Load("/nonexistent/crisp.yaml").code() == Code::kNotFound);
}

}  // namespace crisp::settings
