#include <grpcpp/grpcpp.h>

#include "cri/v1/api.grpc.pb.h"
#include "libs/archive/decompress.h"
#include "libs/archive/source.h"
#include "libs/os/files.h"
#include "services/crispctl/debug/bundle.h"
#include "services/crispctl/debug/redact.h"
#include "services/crispctl/tests/command_run.h"

using namespace crisp;
using namespace crisp::ctl;
using namespace crisp::ctl::debug;

namespace {

namespace cri = runtime::v1;

/// In each place where a secret may be.
constexpr std::string_view kSecret = "hunter2";

/// A CRI whose one container has secrets wherever it can.
class Node final : public cri::RuntimeService::Service {
 public:
  grpc::Status Version(grpc::ServerContext*, const cri::VersionRequest*,
                       cri::VersionResponse* response) override {
    response->set_runtime_name("crisp");
    return grpc::Status::OK;
  }
  grpc::Status ListPodSandbox(grpc::ServerContext*, const cri::ListPodSandboxRequest*,
                              cri::ListPodSandboxResponse* response) override {
    auto* pod = response->add_items();
    pod->set_id("pod1");
    pod->mutable_metadata()->set_name("web");
    (*pod->mutable_annotations())["config"] = "hunter2";
    return grpc::Status::OK;
  }
  grpc::Status ListContainers(grpc::ServerContext*, const cri::ListContainersRequest*,
                              cri::ListContainersResponse* response) override {
    auto* container = response->add_containers();
    container->set_id("c1");
    container->set_pod_sandbox_id("pod1");
    return grpc::Status::OK;
  }
  grpc::Status ContainerStatus(grpc::ServerContext*, const cri::ContainerStatusRequest*,
                               cri::ContainerStatusResponse* response) override {
    response->mutable_status()->set_id("c1");
    response->mutable_status()->set_message("pull from https://joe:hunter2@registry.corp failed");
    (*response->mutable_info())["info"] =
        R"({"pid":7,"runtimeSpec":{"process":{"args":["app","--password","hunter2","--token=hunter2"],)"
        R"("env":["PATH=/bin","DB=hunter2"]},"annotations":{"a":"hunter2"}}})";
    return grpc::Status::OK;
  }
};

/// Serves it on a socket as long as it lives.
struct Served {
  explicit Served(const std::string& socket) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterService(&node);
    server = builder.BuildAndStart();
  }
  ~Served() { server->Shutdown(); }

  Node node;
  std::unique_ptr<grpc::Server> server;
};

/// All of an archive's bytes.
std::string Unpacked(const std::string& path) {
  const std::string packed = os::ReadFile(path, MiB(64)).value();
  archive::StringSource source(packed, 1 << 16);
  const auto reader = archive::MakeDecompressor(archive::Compression::kGzip, source);
  std::string text;
  std::vector<char> buffer(1 << 16);
  for (std::size_t count = 1; count != 0;) {
    count = reader->Read(buffer).value();
    text.append(buffer.data(), count);
  }
  return text;
}

std::string SettingsWithSecrets(const testing::TestRoot& root) {
  return root.Write(
      "crisp.yaml",
      "run_root: " + (root / "run") + "\nstate_root: " + root.path() +
          "\nrund:\n  default_env: [\"PROXY=http://joe:hunter2@proxy\"]\n"
          "  runtimes: {runc: {monitor_env: [\"KEY=hunter2\"], args: [--token=hunter2]}}\n");
}

}  // namespace

TEST_CASE("A bundle has what is known of the node, and none of its secrets") {
  const testing::TestRoot root;
  const std::string config = SettingsWithSecrets(root);
  REQUIRE(os::MakeDirs(root / "run").ok());
  const Served served(root / "run/crisp.sock");
  const std::string out = root / "bundle.tar.gz";
  const Ran ran = RunCommand({"-c", config, "debug", "bundle", "-o", out});
  INFO(ran.err);
  REQUIRE(ran.code == kDone);
  CHECK(ran.out.find("bundle.tar.gz is written") != ran.out.npos);
  const std::string all = Unpacked(out);
  CHECK(all.find(kSecret) == all.npos);
  // The names stay.
  for (const char* part :
       {"/index.txt", "/versions.txt", "/why.txt", "/config/effective.yaml", "/pods.json",
        "/inspect/c1.json", "/node/kernel.txt", "PROXY=", "DB=", "web"}) {
    INFO(part);
    CHECK(all.find(part) != all.npos);
  }
  // No image service, no daemons: lines of the index.
  CHECK(all.find("images.json: FAILED: ") != all.npos);
  CHECK(all.find("metrics/rund-1.txt: FAILED: ") != all.npos);
}

TEST_CASE("A bundle is written without any daemon and with settings that are wrong") {
  const testing::TestRoot root;
  const std::string config = root.Write("crisp.yaml", "log: {level: loud}\n");
  const std::string out = root / "bundle.tar.gz";
  const Ran ran =
      RunCommand({"-c", config, "-s", root / "none.sock", "debug", "bundle", "-o", out});
  INFO(ran.err);
  REQUIRE(ran.code == kDone);
  const std::string all = Unpacked(out);
  CHECK(all.find("config/effective.yaml: FAILED: ") != all.npos);
  CHECK(all.find("containers.json: FAILED: ") != all.npos);
  CHECK(all.find("/node/disk.txt") != all.npos);
  CHECK(RunCommand({"-c", config, "debug", "bundle", "-o", out}).code == kFailed);
}

TEST_CASE("Texts lose what looks like a secret") {
  for (const char* text :
       {"http://joe:hunter2@proxy:3128", "password=hunter2", "\"token\": \"hunter2\"",
        "--secret hunter2", "Authorization: Bearer hunter2", "REGISTRY_PASSWORD='hunter2'",
        "authorization=Basic hunter2 next", "MY_API_KEY: hunter2",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nhunter2"}) {
    INFO(text);
    const std::string redacted = RedactText(text);
    CHECK(redacted.find(kSecret) == redacted.npos);
    CHECK(redacted.find(kRedacted) != redacted.npos);
  }
  for (const char* text : {"https://registry.corp/v2/", "a@b", "no secret here", "level=info",
                           "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----"}) {
    CHECK(RedactText(text) == text);
  }
}

TEST_CASE("Documents keep their shape without their secrets") {
  const auto value = nlohmann::json::parse(
      R"({"env":["A=hunter2"],"envs":[{"key":"B","value":"hunter2"}],"annotations":{"c":"hunter2"},
          "labels":{"d":"kept"},"secret_dirs":["/kept"],"password":"hunter2","auth":"hunter2","n":1,
          "inner":"{\"identityToken\":\"hunter2\",\"e\":\"kept\"}","args":["--token","hunter2"]})");
  const nlohmann::json redacted = RedactJson(value);
  CHECK(redacted.dump().find(kSecret) == std::string::npos);
  CHECK(redacted["env"][0] == "A=<redacted>");
  CHECK(redacted["envs"][0]["key"] == "B");
  CHECK(redacted["labels"]["d"] == "kept");
  CHECK(redacted["n"] == 1);
  CHECK(redacted["secret_dirs"][0] == "/kept");
  CHECK(redacted["inner"]["e"] == "kept");
  CHECK_FALSE(RedactDocument("no json: hunter2").ok());
  CHECK(RedactJson({{"info", "{\"env\":[\"A=hunter2"}}).dump().find(kSecret) == std::string::npos);
}
