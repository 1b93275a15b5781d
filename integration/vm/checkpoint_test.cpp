// Checkpoints by CRIU, which the machine's kernel must know: written, restored in other pods, and
// cut short.
#include <thread>

#include "integration/vm/vm_node.h"

namespace crisp::harness {
namespace {

using std::chrono::seconds;
using Runtime = cri::RuntimeService::StubInterface;

/// Counts in its log and in a file; has changed, made and deleted files before. Its last word when
/// it is told to end is in the log as well.
constexpr const char* kCounter =
    "echo changed > /etc/passwd; rm /etc/group; mkdir /data; ln /etc/passwd /data/linked; "
    "trap 'echo bye; exit 7' TERM; i=0; "
    "while :; do i=$((i+1)); echo $i > /data/n; echo $i; sleep 0.3; done";

class Counter {
 public:
  Counter(Vm& vm, const std::string& name) : vm_(vm), config_(vm.PodConfig(name)) {
    auto* namespaces =
        config_.mutable_linux()->mutable_security_context()->mutable_namespace_options();
    namespaces->set_network(cri::NamespaceMode::POD);
    pod_ = vm_.Pod(config_);
  }

  void Run() {
    id_ = vm_.Running(pod_, config_, Config({"sh", "-c", kCounter}));
    CHECK(Eventually([&] { return Last() >= 5; }, seconds(60)));
  }
  void Restore(const std::string& image) {
    auto config = Config({});
    config.mutable_image()->set_image(image);
    id_ = vm_.Created(pod_, config_, config);
    CHECK(vm_.StatusOf(id_).state() == cri::ContainerState::CONTAINER_CREATED);
    // As a kubelet would have it, should rund be killed meanwhile.
    if (!vm_.cri.Start(id_).ok()) {
      vm_.WaitReady();
      REQUIRE_OK(vm_.cri.Start(id_));
    }
    CHECK(vm_.StatusOf(id_).state() == cri::ContainerState::CONTAINER_RUNNING);
  }
  /// It counts.
  bool GoesOn() const {
    const int now = Last();
    return Eventually([&] { return Last() > now + 2; }, seconds(60));
  }
  int Line(const std::string& which) const {
    const std::string log = config_.log_directory() + "/c/0.log";
    const std::string line =
        Sh("sed -n 's/.* F \\([0-9][0-9]*\\)$/\\1/p' " + log + " 2>/dev/null | " + which);
    return line.empty() ? 0 : std::stoi(line);
  }
  int First() const { return Line("head -n 1"); }
  int Last() const { return Line("tail -n 1"); }

  auto Checkpoint(const std::string& location, std::int64_t timeout = 0) const {
    cri::CheckpointContainerRequest request;
    request.set_container_id(id_);
    request.set_location(location);
    request.set_timeout(timeout);
    return vm_.cri.Call(&Runtime::CheckpointContainer, request);
  }
  const std::string& id() const { return id_; }
  const std::string& pod() const { return pod_; }
  const std::string& log_directory() const { return config_.log_directory(); }

 private:
  cri::ContainerConfig Config(const std::vector<std::string>& command) const {
    auto config = vm_.ContainerConfig(command);
    config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_network(
        cri::NamespaceMode::POD);
    return config;
  }

  Vm& vm_;
  cri::PodSandboxConfig config_;
  std::string pod_;
  std::string id_;
};

/// A directory for archives that goes with the test.
struct Place {
  std::string dir = Sh("mktemp -d /var/tmp/checkpoints.XXXXXX");
  ~Place() { Sh("rm -r " + dir); }
  std::string operator/(const std::string& name) const { return dir + "/" + name; }
  bool IsEmpty() const { return Sh("ls -A " + dir).empty(); }
};

/// As it was counted up to when it was checkpointed.
int NumberIn(const std::string& archive) {
  return std::stoi(Sh("tar xOf " + archive + " rootfs-diff.tar | tar xO data/n"));
}

void CheckRestored(Vm& vm, const Counter& counter, int number) {
  CHECK(counter.GoesOn());
  CHECK(counter.First() == number + 1);
  CHECK(vm.Said(counter.id(), "cat /etc/passwd; ls /etc/group 2>&1 | grep -c 'No such'") ==
        "changed\n1");
  CHECK(vm.Said(counter.id(), "stat -c %h /data/linked") == "2");
  CHECK(vm.CgroupDir(counter.id()).find(counter.id()) != std::string::npos);
  CHECK(Sh("ls /var/lib/crisp/rund/1/restores").empty());
  REQUIRE_OK(vm.cri.Stop(counter.id(), 30));
  CHECK(vm.StatusOf(counter.id()).exit_code() == 7);
  CHECK(Sh("tail -n 1 " + counter.log_directory() + "/c/0.log").ends_with(" stdout F bye"));
  REQUIRE_OK(vm.cri.Remove(counter.id()));
}

bool NothingLeftOfCheckpoints() {
  return Sh("ls /var/lib/crisp/rund/1/checkpoints 2>/dev/null; pgrep -x criu || true").empty();
}

TEST_CASE("A runtime without CRIU says so", "[.checkpoint]") {
  Vm vm;
  if (Vm::handler() != "crun") return;  // Debian's
  Counter counter(vm, "without");
  counter.Run();
  const Place place;
  const auto answer = counter.Checkpoint(place / "a.tar");
  INFO(answer.message());
  CHECK(answer.code() == grpc::StatusCode::UNIMPLEMENTED);
  CHECK(answer.message().find("crun") != std::string::npos);
  CHECK(place.IsEmpty());
}

TEST_CASE("A container is checkpointed, goes on, and is restored in other pods", "[.checkpoint]") {
  Vm vm;
  if (Vm::handler() != "runc") return;
  const Place place;
  const std::string archive = place / "counter.tar";
  Counter counter(vm, "counter");
  counter.Run();
  REQUIRE_OK(counter.Checkpoint(archive));
  CHECK(counter.GoesOn());
  CHECK(Sh("stat -c %a " + archive) == "600");
  CHECK(Sh("ls -A " + place.dir) == "counter.tar");
  CHECK(Sh("tar tf " + archive + " | grep -v '^checkpoint/.'") ==
        "bind.mounts\ncheckpoint/\nconfig.dump\ndeleted.files\ndump.log\nrootfs-diff.tar\n"
        "spec.dump\nstats-dump");
  CHECK(Sh("tar xOf " + archive + " deleted.files") == "[\"/etc/group\"]");
  CHECK(NothingLeftOfCheckpoints());
  const auto again = counter.Checkpoint(archive);
  CHECK(again.code() == grpc::StatusCode::ALREADY_EXISTS);
  const int number = NumberIn(archive);
  // The first one runs on meanwhile.
  Counter restored(vm, "restored");
  restored.Restore(archive);
  CheckRestored(vm, restored, number);
  CHECK(counter.GoesOn());

  // The archive is the layer of an image.
  Sh("cd " + place.dir + R"sh(
     mkdir -p layout/blobs/sha256 && cd layout
     put() { sum=$(sha256sum "$1" | cut -c1-64); size=$(stat -c %s "$1"); mv "$1" blobs/sha256/$sum; }
     cp ../counter.tar layer && put layer
     layer=$sum layer_size=$size
     echo "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$layer\"]}}" >config && put config
     oci=application/vnd.oci.image
     echo "{\"schemaVersion\":2,\"mediaType\":\"$oci.manifest.v1+json\",\"config\":{\"mediaType\":\"$oci.config.v1+json\",\"digest\":\"sha256:$sum\",\"size\":$size},\"layers\":[{\"mediaType\":\"$oci.layer.v1.tar\",\"digest\":\"sha256:$layer\",\"size\":$layer_size}],\"annotations\":{\"org.criu.checkpoint.container.name\":\"c\"}}" >manifest && put manifest
     echo "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"$oci.manifest.v1+json\",\"digest\":\"sha256:$sum\",\"size\":$size}]}" >index.json
     echo '{"imageLayoutVersion":"1.0.0"}' >oci-layout
     crispctl image import --name localhost/checkpoint:1 .)sh");
  Counter from_image(vm, "fromimage");
  from_image.Restore("localhost/checkpoint:1");
  CheckRestored(vm, from_image, number);
  Sh("crispctl rmi localhost/checkpoint:1");
}

TEST_CASE("What is restored is stopped, removed and killed as anything else", "[.checkpoint]") {
  Vm vm;
  if (Vm::handler() != "runc") return;
  const Place place;
  const std::string archive = place / "counter.tar";
  Counter counter(vm, "ends");
  counter.Run();
  REQUIRE_OK(counter.Checkpoint(archive));
  {
    // Stopped before it was started.
    const auto pod_config = vm.PodConfig("unstarted");
    const std::string pod = vm.Pod(pod_config);
    auto config = vm.ContainerConfig({});
    config.mutable_image()->set_image(archive);
    const std::string id = vm.Created(pod, pod_config, config);
    vm.KillDaemon("crisp-rund@1");
    CHECK(vm.StatusOf(id).state() == cri::ContainerState::CONTAINER_CREATED);
    REQUIRE_OK(vm.cri.Stop(id, 10));
    CHECK(vm.StatusOf(id).state() == cri::ContainerState::CONTAINER_EXITED);
    CHECK(vm.StatusOf(id).exit_code() == 137);
    REQUIRE_OK(vm.cri.Remove(id));
  }
  // rund dies while it is restored: it runs, or is restored by the next start.
  Counter restored(vm, "killed");
  std::thread kill([] { Sh("sleep 1.5; systemctl kill --kill-whom=main -s KILL crisp-rund@1"); });
  restored.Restore(archive);
  kill.join();
  vm.WaitReady();
  CHECK(restored.GoesOn());
  CHECK(restored.First() == NumberIn(archive) + 1);
  vm.KillDaemon("crisp-rund@1");
  CHECK(restored.GoesOn());
  CHECK(vm.Said(restored.id(), "echo up") == "up");
}

TEST_CASE("A checkpoint that is cut short leaves the container as it was", "[.checkpoint]") {
  Vm vm;
  if (Vm::handler() != "runc") return;
  const Place place;
  Counter counter(vm, "cut");
  counter.Run();
  const int pid = vm.Pid(counter.id());
  SECTION("by its time") {
    const auto answer = counter.Checkpoint(place / "a.tar", 1);
    INFO(answer.message());
    CHECK(answer.code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  SECTION("by a kill -9 of rund") {
    for (const char* delay : {"0.3", "0.8", "1.5", "2.2"}) {
      std::thread kill([delay] {
        Sh(std::string("sleep ") + delay +
           "; systemctl kill --kill-whom=main -s KILL crisp-rund@1");
      });
      const auto answer = counter.Checkpoint(place / "a.tar");
      kill.join();
      vm.WaitReady();
      INFO(delay << ": " << answer.message());
      CHECK(Eventually(NothingLeftOfCheckpoints, seconds(60)));
      CHECK(counter.GoesOn());
      CHECK(Sh("ls -A " + place.dir + " | grep -v '^a.tar$' || true").empty());
      Sh("rm -f " + (place / "a.tar"));
    }
  }
  CHECK(Eventually(NothingLeftOfCheckpoints, seconds(60)));
  CHECK(place.IsEmpty());
  CHECK(counter.GoesOn());
  CHECK(vm.Pid(counter.id()) == pid);
  CHECK(Sh("nsenter -t " + std::to_string(pid) + " -n iptables -S | grep -c CRIU || true") == "0");
  REQUIRE_OK(counter.Checkpoint(place / "whole.tar"));
}

}  // namespace
}  // namespace crisp::harness
