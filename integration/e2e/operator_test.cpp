// What somebody who runs the node changes, asks and takes away.
#include <chrono>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using Json = nlohmann::json;
using Words = std::vector<std::string>;

Ran Ctl(const OnNode& on, const Words& words) {
  Words line = {CRISP_BUILD_DIR "/bin/crispctl", "--socket", "unix://" + on.node.socket()};
  line.insert(line.end(), words.begin(), words.end());
  return on.node.Inside(line);
}

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// A drop-in of the node, gone with the object, and its keys with it.
class DropIn {
 public:
  explicit DropIn(const OnNode& on)
      : on_(on), path_(on.node.dir() + "/crisp.yaml.d/96-test.yaml") {}
  DropIn(const DropIn&) = delete;
  DropIn& operator=(const DropIn&) = delete;
  ~DropIn() {
    CHECK(os::RemoveFile(path_).ok());
    CHECK(Ctl(on_, {"reload"}).code == 0);
  }
  const std::string& path() const { return path_; }
  void Write(const std::string& text) const { REQUIRE(os::WriteFile(path_, text).ok()); }

 private:
  const OnNode& on_;
  const std::string path_;
};

/// The daemons that have not taken log.level.
std::size_t NotTaken(const OnNode& on) {
  const Ran ran = Ctl(on, {"-o", "json", "config", "diff", "--running"});
  INFO(ran.err << ran.out);
  REQUIRE(ran.code == 0);
  std::size_t count = 0;
  for (const Json& one : Json::parse(ran.out)) {
    if (one["key"] == "log.level") ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("A reload that one daemon refuses is applied by none, and says file, line and key") {
  OnNode on;
  on.node.WaitReady();
  REQUIRE(NotTaken(on) == 0);
  const DropIn drop_in(on);
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"rund:\n  runtimes: {kata: {path: /no/such/kata}}\n  default_runtime: kata\n",
       ":4: rund.default_runtime: 'kata' does not work: runtime kata: there is no program "},
      {"rund:\n  seccomp_profile: /no/such/profile.json\n",
       ":3: rund.seccomp_profile: seccomp profile: "},
      {"rund:\n  runtimes:\n    runc:\n      base_spec: /no/such/base.json\n",
       ":5: rund.runtimes.runc.base_spec: base_spec: "},
      {"rund:\n  streaming_tls_cert: /no/such/c.pem\n  streaming_tls_key: /no/such/k.pem\n",
       ":3: rund.streaming_tls_cert: /no/such/c.pem: "},
      {"netd: {hostports: builtin, nft: /no/such/nft}\n",
       ":2: netd.nft: there is no program /no/such/nft"},
      {"rund: {streaming_address: \"localhost:0\"}\n",
       ":2: rund.streaming_address: 'localhost:0' is not IP:port"},
      {"rund:\n  default_ulimits: [\"nofile=2:1\"]\n",
       ":3: rund.default_ulimits: 'nofile=2:1' has more soft than hard"}};
  for (const auto& [text, told] : wrong) {
    drop_in.Write("log: {level: trace}\n" + text);
    const Ran reload = Ctl(on, {"reload"});
    INFO(text << reload.err);
    CHECK(reload.code == 1);
    CHECK(Has(reload.err, drop_in.path() + told));
    const Ran checked = Ctl(on, {"config", "check"});
    INFO(checked.err << checked.out);
    // A program is only asked by the one who is to use it.
    if (!Has(text, "kata")) CHECK(Has(checked.err, drop_in.path() + told));
  }
  drop_in.Write("log: {level: trace}\n");
  CHECK(NotTaken(on) == 4);
  CHECK(Has(Ctl(on, {"status"}).out, "rund/1 has not taken log.level from the files yet"));
}

TEST_CASE("Trace tells of each call and each program, as soon as it is asked for") {
  OnNode on;
  on.node.WaitReady();
  const DropIn drop_in(on);
  drop_in.Write("log: {level: trace}\n");
  CHECK(Ctl(on, {"reload"}).code == 0);
  CHECK(NotTaken(on) == 0);
  CHECK(Ctl(on, {"pods"}).code == 0);
  const std::string& image = on.node.Busybox();
  CHECK(Ctl(on, {"run", image, "true"}).code == 0);
  const std::string logs = on.node.Logs(400);
  CHECK(Has(logs, "call ended from=crid/1 rpc=/runtime.v1.RuntimeService/ListPodSandbox"));
  CHECK(Has(logs, "program ended from=rund/1 program="));
  drop_in.Write("log: {level: fatal}\n");
  CHECK(Ctl(on, {"reload"}).code == 0);
  CHECK(Ctl(on, {"-o", "json", "config", "effective"}).out.find("\"level\": \"fatal\"") !=
        std::string::npos);
}

TEST_CASE("crispctl wipe takes all pods and images away, once it is told to be sure") {
  OnNode on;
  on.node.WaitReady();
  const std::string& image = on.node.Busybox();
  REQUIRE(Ctl(on, {"run", "--detach", "--name", "wiped", image, "sleep", "1000"}).code == 0);
  const Ran unsure = Ctl(on, {"wipe", "--images"});
  CHECK(unsure.code == 1);
  CHECK(Has(unsure.err, "would remove 1 pods and "));
  CHECK(Has(unsure.err, "--yes"));
  CHECK(Json::parse(Ctl(on, {"-o", "json", "pods"}).out)["items"].size() == 1);
  const Ran wiped = Ctl(on, {"wipe", "--images", "--yes"});
  INFO(wiped.err << wiped.out);
  CHECK(wiped.code == 0);
  CHECK(Json::parse(Ctl(on, {"-o", "json", "pods"}).out)["items"].empty());
  CHECK(Json::parse(Ctl(on, {"-o", "json", "images"}).out)["images"].empty());
  REQUIRE(Ctl(on, {"pull", image}).code == 0);  // the node's other tests count on it
}

}  // namespace crisp::harness
