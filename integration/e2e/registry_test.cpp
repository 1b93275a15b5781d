#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

// Registries with certificates, passwords, mirrors and every format, against Debian's
// docker-registry and skopeo.
namespace crisp::harness {
namespace {

using Json = nlohmann::json;

// joe:secret
constexpr std::string_view kHtpasswd =
    "joe:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A second registry in the node's namespaces, with a certificate that nobody vouches for, a user
/// joe, and Docker's first format allowed. Ends with the node, or with the object.
class SecureRegistry {
 public:
  explicit SecureRegistry(Node& node) : node_(node), dir_(node.dir() + "/secure") {
    host_ = "127.0.0.1:5443";
    Must(os::MakeDirs(dir_ + "/data"));
    const Ran key = RunProgram({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                                "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                                "/CN=crisp test", "-addext", "subjectAltName=IP:127.0.0.1",
                                "-keyout", dir_ + "/key.pem", "-out", dir_ + "/cert.pem"});
    INFO(key.err);
    REQUIRE(key.code == 0);
    Must(os::WriteFile(dir_ + "/htpasswd", kHtpasswd));
    Must(os::WriteFile(
        dir_ + "/config.yml",
        fmt::format(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
            "storage: {{filesystem: {{rootdirectory: {0}/data}}}}\n"
            "auth: {{htpasswd: {{realm: test, path: {0}/htpasswd}}}}\n"
            "compatibility: {{schema1: {{enabled: true}}}}\n"
            "http: {{addr: \"{1}\", tls: {{certificate: {0}/cert.pem, key: {0}/key.pem}}}}\n",
            dir_, host_)));
    node.Inside({"bash", "-c",
                 fmt::format("docker-registry serve {0}/config.yml >{0}/log 2>&1 </dev/null & "
                             "echo $! >{0}/pid",
                             dir_)});
    const bool up = Eventually([&] {
      return node.Inside({"bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/5443"}).code == 0;
    });
    INFO(os::ReadFile(dir_ + "/log").value_or(""));
    REQUIRE(up);
  }
  SecureRegistry(const SecureRegistry&) = delete;
  SecureRegistry& operator=(const SecureRegistry&) = delete;
  ~SecureRegistry() {
    node_.Inside({"bash", "-c", "kill $(cat " + dir_ + "/pid)"});
    for (const char* file : {"etc/auth.json", "etc/registries.conf"})
      static_cast<void>(os::RemoveFile(node_.dir() + "/" + file).ok());
    static_cast<void>(os::RemoveTree(node_.dir() + "/etc/certs.d").ok());
  }

  const std::string& host() const { return host_; }
  /// The node learns to believe the certificate.
  void Trust() const {
    const std::string certs = node_.dir() + "/etc/certs.d/" + host_;
    Must(os::MakeDirs(certs));
    Must(os::WriteFile(certs + "/ca.crt", os::ReadFile(dir_ + "/cert.pem").value_or("")));
  }
  /// skopeo copies an image of the node's own registry here.
  void Push(const std::string& from, const std::string& to,
            const std::vector<std::string>& options) const {
    std::vector<std::string> argv = {"skopeo",
                                     "--insecure-policy",
                                     "copy",
                                     "-q",
                                     "--src-tls-verify=false",
                                     "--dest-tls-verify=false",
                                     "--dest-creds",
                                     "joe:secret"};
    argv.insert(argv.end(), options.begin(), options.end());
    argv.push_back("docker://" + from);
    argv.push_back("docker://" + host_ + "/" + to);
    const Ran ran = node_.Inside(argv);
    INFO(ran.err);
    REQUIRE(ran.code == 0);
  }

 private:
  static void Must(const Status& status) { REQUIRE(status.message() == ""); }

  Node& node_;
  const std::string dir_;
  std::string host_;
};

Answer<cri::PullImageResponse> PullAs(OnNode& on, const std::string& image, const std::string& user,
                                      const std::string& password) {
  cri::PullImageRequest request;
  request.mutable_image()->set_image(image);
  request.mutable_auth()->set_username(user);
  request.mutable_auth()->set_password(password);
  return on.cri.Call(&cri::ImageService::StubInterface::PullImage, request);
}

bool Says(const grpc::Status& status, const std::string& text) {
  return status.error_message().find(text) != std::string::npos;
}

TEST_CASE("A registry with a certificate of its own and a password, all set up live") {
  OnNode on;
  const SecureRegistry registry(on.node);
  const Json made = on.node.MakeImage("secure:1", {"--scratch", "--layer-file", "made/file=x"});
  registry.Push(made["ref"], "team/app:1", {});
  const std::string image = registry.host() + "/team/app:1";

  const auto distrusted = PullAs(on, image, "joe", "secret");
  CHECK(distrusted.code() == grpc::StatusCode::UNKNOWN);
  CHECK(distrusted.status.error_message().starts_with("RegistryUnavailable: "));
  CHECK(Says(distrusted.status, "is not trusted"));
  registry.Trust();
  const auto nobody = on.cri.Pull(image);
  CHECK(nobody.code() == grpc::StatusCode::UNAUTHENTICATED);
  CHECK(Says(nobody.status, "(credentials: none)"));
  const auto wrong = PullAs(on, image, "joe", "wrong-password");
  CHECK(wrong.code() == grpc::StatusCode::UNAUTHENTICATED);
  CHECK_FALSE(Says(wrong.status, "wrong-password"));
  const auto right = PullAs(on, image, "joe", "secret");
  REQUIRE_OK(right);
  CHECK(on.cri.ImageStatus(image)->image().id() == right->image_ref());

  // The node's own credentials, for a namespace.
  const std::string auth = on.node.dir() + "/etc/auth.json";
  REQUIRE(os::WriteFile(auth, "{\"auths\": {\"" + registry.host() +
                                  "/team\": {\"auth\": \"am9lOnNlY3JldA==\"}}}")
              .ok());
  REQUIRE_OK(on.cri.Pull(image));
  // As a mirror of a registry that does not exist.
  REQUIRE(os::WriteFile(on.node.dir() + "/etc/registries.conf",
                        "[[registry]]\nprefix = 'far.example/x'\nlocation = '127.0.0.1:1/x'\n"
                        "[[registry.mirror]]\nlocation = '" +
                            registry.host() + "/team'\n")
              .ok());
  const auto mirrored = on.cri.Pull("far.example/x/app:1");
  REQUIRE_OK(mirrored);
  CHECK(mirrored->image_ref() == right->image_ref());
  CHECK(on.cri.ImageStatus("far.example/x/app:1")->has_image());
}

TEST_CASE("Whatever format skopeo pushes comes out as the same tree") {
  OnNode on;
  const SecureRegistry registry(on.node);
  registry.Trust();
  const std::vector<std::pair<std::string, std::vector<std::string>>> kinds = {
      {"oci", {"--format", "oci"}},
      {"zstd", {"--format", "oci", "--dest-compress-format", "zstd"}},
      {"docker2", {"--format", "v2s2"}},
      {"docker1", {"--format", "v2s1"}},
  };
  for (const auto& [kind, options] : kinds) {
    INFO(kind);
    // Contents of its own, so that skopeo has no blob of another kind at hand.
    const Json made = on.node.MakeImage(
        "kinds-" + kind + ":1", {"--scratch", "--compression", "none", "--layer-file",
                                 "a/low=one " + kind, "--layer-file", "a/high=two " + kind});
    registry.Push(made["ref"], kind + ":1", options);
    const auto pulled = PullAs(on, registry.host() + "/" + kind + ":1", "joe", "secret");
    REQUIRE_OK(pulled);
    // What was unpacked has the diff ids of the tars that the image was made of.
    const auto status = on.cri.ImageStatus(pulled->image_ref(), true);
    REQUIRE(status->has_image());
    const Json info = Json::parse(status->info().at("info"));
    CHECK(info["imageSpec"]["rootfs"]["diff_ids"].size() == 2);
    CHECK(info["imageSpec"]["rootfs"]["diff_ids"][0] == made["layers"][0]["diff_id"]);
    CHECK(info["imageSpec"]["rootfs"]["diff_ids"][1] == made["layers"][1]["diff_id"]);
  }
}

TEST_CASE("crispctl image import and export carry an image without a registry") {
  OnNode on;
  const std::string dir = on.node.dir();
  const std::string program = CRISP_BUILD_DIR "/bin/crispctl";
  const auto ctl = [&](std::vector<std::string> argv) {
    argv.insert(argv.begin(), {program, "--socket", on.node.socket(), "image"});
    return on.node.Inside(argv);
  };
  const Json made = on.node.MakeImage(
      "carried:1", {"--layer-file", "made/file=carried", "--cmd", R"(["cat","/made/file"])"});
  for (const std::string& kind : {std::string("oci"), std::string("docker-archive")}) {
    INFO(kind);
    const std::string path = dir + "/carried-" + kind;
    const std::string name =
        kind == "oci" ? "localhost/carried-oci:1" : "localhost/carried-docker:1";
    const Ran copied =
        on.node.Inside({"skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false",
                        "docker://" + std::string(made["ref"]), kind + ":" + path + ":" + name});
    INFO(copied.err);
    REQUIRE(copied.code == 0);
    const Ran imported = ctl({"import", path});
    INFO(imported.err);
    REQUIRE(imported.code == 0);
    CHECK(imported.out.find(name) != std::string::npos);
    REQUIRE(on.cri.ImageStatus(name)->has_image());

    const auto pod_config = on.node.PodConfig("carried", true);
    const std::string pod = on.Pod(pod_config);
    auto config = on.node.ContainerConfig("c", {});
    config.mutable_image()->set_image(name);
    const std::string id = on.Running(pod, pod_config, config);
    CHECK(on.Exited(id).exit_code() == 0);
    CHECK(on.Log(pod_config, config).find("carried") != std::string::npos);
  }
  const std::string tar = dir + "/exported.tar";
  const Ran exported = ctl({"export", "localhost/carried-oci:1", tar});
  INFO(exported.err);
  REQUIRE(exported.code == 0);
  // Others read it.
  const Ran inspected = on.node.Inside({"skopeo", "inspect", "docker-archive:" + tar});
  INFO(inspected.err);
  CHECK(inspected.code == 0);
  const Ran again = ctl({"import", tar, "--name", "localhost/again:1"});
  INFO(again.err);
  CHECK(again.code == 0);
  CHECK(on.cri.ImageStatus("localhost/again:1")->has_image());
  CHECK(ctl({"import", dir + "/crisp.yaml"}).code == 1);
  CHECK(ctl({"export", "localhost/none:1", tar}).code == 1);
  CHECK(os::Exists(tar));
}

}  // namespace
}  // namespace crisp::harness
