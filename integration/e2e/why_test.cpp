// "crispctl why" names the culprit, with the real thing: what hangs here hangs as it does on a
// node.
#include <future>
#include <optional>

#include "integration/harness/node.h"
#include "integration/harness/require.h"
#include "libs/os/files.h"

#include <catch2/catch.hpp>

namespace crisp::harness {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Words = std::vector<std::string>;

constexpr milliseconds kPatience{8000};

bool Says(const std::string& text, std::string_view words) {
  return text.find(words) != std::string::npos;
}

void Must(const Status& status) { REQUIRE(status.message() == ""); }

/// A node with a network plugin "slow" and a runtime handler "hangs", both of which write their
/// process's number into a file and wait.
class WhyNode {
 public:
  WhyNode() : node({.start = false}) {
    const std::string bin = node.dir() + "/bin";
    Must(os::MakeDirs(bin));
    Must(os::WriteFile(bin + "/slow",
                       "#!/bin/sh\ncase $CNI_COMMAND in\nVERSION) echo '{\"cniVersion\":\"1.0.0\","
                       "\"supportedVersions\":[\"1.0.0\"]}' ;;\nADD) echo $$ >" +
                           Pid("slow") + "; exec sleep 1000 ;;\nesac\n",
                       0755));
    Must(os::WriteFile(bin + "/hangs",
                       "#!/bin/sh\ncase \" $* \" in *\" create \"*) echo $$ >" + Pid("hangs") +
                           "; exec sleep 1000 ;;\nesac\nexec /usr/sbin/runc \"$@\"\n",
                       0755));
    Must(os::MakeDirs(node.dir() + "/crisp.yaml.d"));
    Must(os::WriteFile(node.dir() + "/crisp.yaml.d/20-why.yaml",
                       "netd:\n  bin_dirs: [" + bin +
                           ", /opt/cni/bin, /usr/lib/cni]\nrund:\n  runtimes:\n    hangs: {path: " +
                           bin + "/hangs}\n"));
  }

  std::string Pid(const std::string& name) const { return node.dir() + "/" + name + ".pid"; }
  /// Until the program has begun to hang.
  void AwaitHang(const std::string& name) const {
    REQUIRE(Eventually([&] { return os::ReadFile(Pid(name)).value_or("").ends_with('\n'); }));
  }
  void End(const std::string& name) {
    node.Inside({"bash", "-c", "kill -KILL $(cat " + Pid(name) + ")"});
  }
  Ran Why(Words words) const {
    words.insert(words.begin(),
                 {CRISP_BUILD_DIR "/bin/crispctl", "--config", node.dir() + "/crisp.yaml", "why"});
    return node.Inside(words);
  }
  /// What it says at last, once it says `words`.
  std::string Says(const std::string& what, std::string_view words) const {
    Ran ran;
    Eventually([&] {
      ran = Why(what.empty() ? Words() : Words{what});
      return harness::Says(ran.out, words);
    });
    UNSCOPED_INFO("why " << what << ": " << ran.out << ran.err);
    CHECK(ran.code == 0);
    CHECK(harness::Says(ran.out, words));
    return ran.out;
  }

  Node node;
};

/// A registry with one image whose layer comes byte by byte. Ends with the object.
class DrippingRegistry {
 public:
  explicit DrippingRegistry(Node& node) : node_(node), pid_(node.dir() + "/drip.pid") {
    static constexpr const char* kServer = R"(
import hashlib, http.server, json, sys, time
def digest(data): return "sha256:" + hashlib.sha256(data).hexdigest()
layer = digest(b"nothing that ever comes")
config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                     "rootfs": {"type": "layers", "diff_ids": [layer]}}).encode()
oci = "application/vnd.oci.image."
manifest = json.dumps({
    "schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
    "config": {"mediaType": oci + "config.v1+json", "digest": digest(config), "size": len(config)},
    "layers": [{"mediaType": oci + "layer.v1.tar+gzip", "digest": layer, "size": 1000000}],
}).encode()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def do_GET(self):
        if "/manifests/" in self.path: body, kind = manifest, oci + "manifest.v1+json"
        elif digest(config) in self.path: body, kind = config, "application/octet-stream"
        elif layer in self.path: body, kind = None, "application/octet-stream"
        else: body, kind = b"{}", "application/json"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(1000000 if body is None else len(body)))
        self.end_headers()
        if body is not None: return self.wfile.write(body)
        while True:
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.1)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 5998), Handler)
print("listens", flush=True)
server.serve_forever()
)";
    const std::string log = node.dir() + "/drip.log";
    Must(os::WriteFile(node.dir() + "/drip.py", kServer));
    node.Inside(
        {"bash", "-c",
         "python3 " + node.dir() + "/drip.py >" + log + " 2>&1 </dev/null & echo $! >" + pid_});
    const bool up = Eventually([&] { return os::ReadFile(log).value_or("") == "listens\n"; });
    INFO(os::ReadFile(log).value_or(""));
    REQUIRE(up);
  }
  DrippingRegistry(const DrippingRegistry&) = delete;
  DrippingRegistry& operator=(const DrippingRegistry&) = delete;
  ~DrippingRegistry() { node_.Inside({"bash", "-c", "kill $(cat " + pid_ + ")"}); }

 private:
  Node& node_;
  const std::string pid_;
};

/// A file system in a file, for a volume. Thawed and unmounted with the object.
class Volume {
 public:
  explicit Volume(Node& node) : node_(node), path_(node.dir() + "/volume") {
    const Ran made = node.Inside(
        {"bash", "-c",
         "mkdir -p $1 && truncate -s 16M $1.img && mkfs.ext4 -q $1.img && mount -o loop $1.img $1",
         "bash", path_});
    INFO(made.err);
    REQUIRE(made.code == 0);
  }
  Volume(const Volume&) = delete;
  Volume& operator=(const Volume&) = delete;
  ~Volume() {
    Thaw();
    node_.Inside({"umount", path_});
  }
  const std::string& path() const { return path_; }
  void Freeze() {
    const Ran ran = node_.Inside({"fsfreeze", "--freeze", path_});
    INFO(ran.err);
    REQUIRE(ran.code == 0);
    frozen_ = true;
  }
  void Thaw() {
    if (std::exchange(frozen_, false)) node_.Inside({"fsfreeze", "--unfreeze", path_});
  }

 private:
  Node& node_;
  const std::string path_;
  bool frozen_ = false;
};

void CheckClean(Node& node) {
  const std::vector<std::string> left = node.CleanUp();
  for (const std::string& line : left) UNSCOPED_INFO(line);
  CHECK(left.empty());
}

TEST_CASE("why names a network plugin that hangs, and the error of the deadline does, too") {
  WhyNode on;
  Must(os::WriteFile(on.node.dir() + "/cni/05-slow.conflist",
                     R"({"cniVersion":"1.0.0","name":"slow","plugins":[{"type":"slow"}]})"));
  on.node.StartDaemons();
  const auto config = on.node.PodConfig("hung");
  auto run = std::async(std::launch::async,
                        [&] { return on.node.cri().RunPod(config, "", kPatience).status; });
  on.AwaitHang("slow");
  const std::string said =
      on.Says(config.metadata().name(), "culprit: the network plugin slow: ADD");
  CHECK(Says(said, "RunPodSandbox of tests/" + config.metadata().name()));
  CHECK(Says(said, "(sleep 1000) sleeps in "));
  CHECK(Says(said, "kernel: "));
  on.Says("", "culprit: the network plugin slow: ADD");

  const grpc::Status status = run.get();
  INFO(status.error_message());
  CHECK(status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  CHECK(Says(status.error_message(), "RunPodSandbox took "));
  CHECK(Says(status.error_message(), "Attach of netd/1 "));
  CHECK(Says(status.error_message(), "; netd/1: "));
  CHECK(Says(status.error_message(), "plugin slow: ADD "));
  CHECK(Says(status.error_message(), ", process "));
  // A retry joins it, and is told the same.
  const auto retried = on.node.cri().RunPod(config, "", seconds(1));
  INFO(retried.message());
  CHECK(Says(retried.message(), "the same call, which is under way already"));
  // It goes on without its caller, and is kept when it has failed.
  on.Says(config.metadata().name(), "its caller was told: ");
  on.End("slow");
  on.Says(config.metadata().name(), "What failed last:");
  CheckClean(on.node);
}

TEST_CASE("why names a runtime that does not answer") {
  WhyNode on;
  on.node.StartDaemons();
  const std::string image = on.node.Busybox();
  const auto config = on.node.PodConfig("runtime", true);
  const auto pod = on.node.cri().RunPod(config, "hangs");
  REQUIRE_OK(pod);
  const auto container = on.node.ContainerConfig("stuck", {"sleep", "1000"});
  auto create = std::async(std::launch::async, [&] {
    return on.node.cri().Create(pod->pod_sandbox_id(), container, config, kPatience).status;
  });
  on.AwaitHang("hangs");
  const std::string said = on.Says("stuck", "culprit: the OCI runtime hangs: create");
  CHECK(Says(said, "(sleep 1000) sleeps in "));
  on.Says(config.metadata().name(), "culprit: the OCI runtime hangs: create");
  const grpc::Status status = create.get();
  INFO(status.error_message());
  CHECK(status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  CHECK(Says(status.error_message(), "CreateContainer of rund/1 "));
  CHECK(Says(status.error_message(), "; rund/1: "));
  CHECK(Says(status.error_message(), "runtime hangs: create "));
  on.End("hangs");
  CheckClean(on.node);
}

TEST_CASE("why names a registry that drips") {
  WhyNode on;
  on.node.StartDaemons();
  const DrippingRegistry registry(on.node);
  auto pull = std::async(std::launch::async, [&] {
    return on.node.cri().Pull("127.0.0.1:5998/slow/drip:1", kPatience).status;
  });
  const std::string said = on.Says("drip", "culprit: the registry 127.0.0.1:5998: ");
  CHECK(Says(said, " of 1000000 bytes from 127.0.0.1:5998, "));
  CHECK(Says(said, "bytes/s"));
  const grpc::Status status = pull.get();
  INFO(status.error_message());
  CHECK(status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  CHECK(Says(status.error_message(), "PullImage took "));
  CHECK(Says(status.error_message(), " of 1000000 bytes from 127.0.0.1:5998"));
}

TEST_CASE("why names a full disk") {
  WhyNode on;
  const std::string state = on.node.dir() + "/state";
  REQUIRE(on.node
              .Inside({"bash", "-c", "mkdir -p $1 && mount -t tmpfs -o size=32m none $1", "bash",
                       state})
              .code == 0);
  on.node.StartDaemons();
  const std::string image = on.node.MakeImage("full:1", {})["ref"];
  on.node.Inside({"dd", "if=/dev/zero", "of=" + state + "/fill", "bs=64k"});
  const auto pulled = on.node.cri().Pull(image);
  INFO(Describe(pulled.status));
  CHECK_FALSE(pulled.ok());
  const std::string said = on.Says("full", "the disk below " + state + " is full");
  CHECK(Says(said, "PullImage of " + image));
  CHECK(Says(said, "culprit: a full disk"));
  on.Says("", "the disk below " + state + " is full");
  on.node.Inside({"rm", state + "/fill"});
}

TEST_CASE("why names a daemon that is stopped, and one that is away") {
  WhyNode on;
  on.node.StartDaemons();
  const std::string image = on.node.MakeImage("stopped:1", {})["ref"];
  on.node.Signal("imaged", "STOP");
  auto pull =
      std::async(std::launch::async, [&] { return on.node.cri().Pull(image, kPatience).status; });
  const std::string said = on.Says("stopped", "culprit: imaged/1 does not answer");
  CHECK(Says(said, "is stopped"));
  CHECK(
      Says(said, "what to do: somebody has stopped it: kill -CONT " + on.node.DaemonPid("imaged")));
  const grpc::Status status = pull.get();
  INFO(status.error_message());
  CHECK(Says(status.error_message(), "wait for the answer of imaged/1 "));
  on.node.Signal("imaged", "CONT");
  on.node.WaitReady();

  const auto away = on.node.Away("imaged");
  on.Says("", "imaged/1 is not running");
  CHECK_FALSE(on.node.cri().Pull(image).ok());
  on.Says("stopped", "imaged/1 is away");
}

TEST_CASE("why names a volume in which a container sleeps uninterruptibly") {
  WhyNode on;
  on.node.StartDaemons();
  std::optional<Volume> volume(std::in_place, on.node);
  const auto config = on.node.PodConfig("volume", true);
  const auto pod = on.node.cri().RunPod(config);
  REQUIRE_OK(pod);
  auto container = on.node.ContainerConfig(
      "writer", {"sh", "-c", "while :; do echo x >>/data/file; sleep 0.05; done"});
  auto* mount = container.add_mounts();
  mount->set_host_path(volume->path());
  mount->set_container_path("/data");
  const auto created = on.node.cri().Create(pod->pod_sandbox_id(), container, config);
  REQUIRE_OK(created);
  REQUIRE_OK(on.node.cri().Start(created->container_id()));
  volume->Freeze();
  const std::string said = on.Says("writer", "culprit: a volume or a disk: process ");
  CHECK(Says(said, "is in uninterruptible sleep in "));
  CHECK(Says(said, ", at /data/file on /data (ext4 on /dev/loop"));
  CHECK(Says(said, "its file system is frozen"));
  CHECK(Says(said, "fsfreeze --unfreeze"));
  // Nor does a stop end it: that says where it is, too.
  auto stop = std::async(std::launch::async, [&] {
    return on.node.cri().Stop(created->container_id(), 0, seconds(60)).status;
  });
  on.Says(config.metadata().name(), "wait for the end of the container's processes");
  volume->Thaw();
  CHECK(stop.get().ok());
  volume.reset();
  CheckClean(on.node);
}

}  // namespace
}  // namespace crisp::harness
