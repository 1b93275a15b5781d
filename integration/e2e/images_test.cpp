#include <algorithm>
#include <future>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using Image = cri::ImageService::StubInterface;
using Json = nlohmann::json;

bool Contains(const google::protobuf::RepeatedPtrField<std::string>& list,
              const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

/// Pulls and runs `cat /made/file`, which the image's second layer brings.
void CheckPullAndRun(OnNode& on, const std::string& name, const std::vector<std::string>& options) {
  std::vector<std::string> all = options;
  all.insert(all.end(),
             {"--layer-file", "made/file=content of " + name, "--cmd", R"(["cat","/made/file"])"});
  const Json made = on.node.MakeImage(name, all);
  const std::string ref = made["ref"];
  const auto pulled = on.cri.Pull(ref);
  REQUIRE_OK(pulled);
  CHECK(pulled->image_ref() == made["image_id"]);

  const auto status = on.cri.ImageStatus(ref);
  REQUIRE_OK(status);
  REQUIRE(status->has_image());
  CHECK(status->image().id() == made["image_id"]);
  CHECK(status->image().size() > 0);
  CHECK(Contains(status->image().repo_tags(), ref));
  CHECK(Contains(status->image().repo_digests(),
                 ref.substr(0, ref.rfind(':')) + "@" + std::string(made["digest"])));

  const auto pod_config = on.node.PodConfig("image", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {});
  config.mutable_image()->set_image(pulled->image_ref());
  const std::string id = on.Running(pod, pod_config, config);
  CHECK(on.Exited(id).exit_code() == 0);
  CHECK(on.StatusOf(id).image_id() == made["image_id"]);
  CHECK(on.Log(pod_config, config).find("content of " + name) != std::string::npos);
}

TEST_CASE("OCI image, gzip") {
  OnNode on;
  CheckPullAndRun(on, "formats:oci-gzip", {});
}
TEST_CASE("OCI image, zstd") {
  OnNode on;
  CheckPullAndRun(on, "formats:oci-zstd", {"--compression", "zstd"});
}
TEST_CASE("OCI image, not compressed") {
  OnNode on;
  CheckPullAndRun(on, "formats:oci-none", {"--compression", "none"});
}
TEST_CASE("OCI index: the image of this machine is taken") {
  OnNode on;
  CheckPullAndRun(on, "formats:oci-index", {"--index"});
}
TEST_CASE("Docker schema 2, gzip") {
  OnNode on;
  CheckPullAndRun(on, "formats:docker", {"--schema", "docker"});
}
TEST_CASE("Docker manifest list") {
  OnNode on;
  CheckPullAndRun(on, "formats:docker-list", {"--schema", "docker", "--index"});
}

TEST_CASE("An image is found by tag, by digest, by id and by the beginning of its id") {
  OnNode on;
  const Json made = on.node.MakeImage("names:1", {"--env", "N=1"});
  const std::string ref = made["ref"];
  const std::string id = made["image_id"];
  const std::string repository = ref.substr(0, ref.rfind(':'));
  REQUIRE_OK(on.cri.Pull(ref));
  for (const std::string& name :
       {ref, repository + "@" + std::string(made["digest"]), id, id.substr(7), id.substr(7, 12)}) {
    INFO(name);
    const auto status = on.cri.ImageStatus(name);
    REQUIRE_OK(status);
    REQUIRE(status->has_image());
    CHECK(status->image().id() == id);
  }
  const auto by_digest = on.cri.Pull(repository + "@" + std::string(made["digest"]));
  REQUIRE_OK(by_digest);
  CHECK(by_digest->image_ref() == id);
  REQUIRE_OK(on.cri.RemoveImage(id));
}

TEST_CASE("Images are listed, filtered, and removed as often as one likes") {
  OnNode on;
  const std::string one = on.node.MakeImage("list:1", {"--env", "N=1"})["ref"];
  const std::string two = on.node.MakeImage("list:2", {"--env", "N=2"})["ref"];
  REQUIRE_OK(on.cri.Pull(one));
  REQUIRE_OK(on.cri.Pull(two));
  const auto names = [&](const std::string& filter) {
    std::vector<std::string> found;
    const auto images = on.cri.ListImages(filter);
    REQUIRE_OK(images);
    for (const auto& image : images->images()) {
      for (const std::string& tag : image.repo_tags()) found.push_back(tag);
    }
    return found;
  };
  const auto all = names("");
  CHECK(std::count(all.begin(), all.end(), one) == 1);
  CHECK(std::count(all.begin(), all.end(), two) == 1);
  CHECK(names(one) == std::vector{one});
  for (int i = 0; i < 2; ++i) REQUIRE_OK(on.cri.RemoveImage(one));
  CHECK_FALSE(on.cri.ImageStatus(one)->has_image());
  CHECK(on.cri.ImageStatus(two)->has_image());
  REQUIRE_OK(on.cri.RemoveImage(two));
}

TEST_CASE("Two tags of one image are one image") {
  OnNode on;
  const Json made = on.node.MakeImage("tags:1", {"--env", "N=tags"});
  const std::string other = on.node.MakeImage("tags:2", {"--env", "N=tags"})["ref"];
  REQUIRE_OK(on.cri.Pull(made["ref"]));
  REQUIRE_OK(on.cri.Pull(other));
  const auto status = on.cri.ImageStatus(other);
  CHECK(status->image().repo_tags_size() == 2);
  CHECK(status->image().id() == made["image_id"]);
  REQUIRE_OK(on.cri.RemoveImage(made["image_id"]));
  CHECK_FALSE(on.cri.ImageStatus(other)->has_image());
}

TEST_CASE("Whiteouts hide what the layers below have") {
  OnNode on;
  const Json made = on.node.MakeImage(
      "whiteout:1", {"--layer-file", "gone/file=x", "--layer-file", "kept/file=y",
                     "--layer-whiteout", "gone/file", "--cmd", R"(["ls","/gone","/kept"])"});
  REQUIRE_OK(on.cri.Pull(made["ref"]));
  const auto pod_config = on.node.PodConfig("whiteout", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {});
  config.mutable_image()->set_image(made["ref"]);
  on.Exited(on.Running(pod, pod_config, config));
  const std::string log = on.Log(pod_config, config, "/kept");
  CHECK(log.find("/kept:\n") != std::string::npos);
  // "/gone:" is listed with nothing in it.
  std::size_t files = 0;
  for (std::size_t at = log.find(" F file\n"); at != std::string::npos;
       at = log.find(" F file\n", at + 1)) {
    ++files;
  }
  CHECK(files == 1);
}

TEST_CASE("Many layers and thousands of files") {
  OnNode on;
  std::vector<std::string> options = {"--layer-small", "3000"};
  for (int i = 0; i < 10; ++i) options.insert(options.end(), {"--layer-random", "1M"});
  const Json made = on.node.MakeImage("many:1", options);
  REQUIRE_OK(on.cri.Pull(made["ref"]));
  const auto pod_config = on.node.PodConfig("many", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig(
      "c", {"sh", "-c", "find /small1 -type f | wc -l; ls / | grep -c blob"});
  config.mutable_image()->set_image(made["ref"]);
  on.Exited(on.Running(pod, pod_config, config));
  const std::string log = on.Log(pod_config, config, " F 10\n");
  CHECK(log.find(" F 3000\n") != std::string::npos);
  CHECK(log.find(" F 10\n") != std::string::npos);
}

TEST_CASE("Ten pulls of the same image at once all succeed") {
  OnNode on;
  const Json made = on.node.MakeImage("flight:1", {"--layer-random", "5M"});
  std::vector<std::future<Answer<cri::PullImageResponse>>> calls;
  for (int i = 0; i < 10; ++i) {
    calls.push_back(
        std::async(std::launch::async, [&] { return on.cri.Pull(std::string(made["ref"])); }));
  }
  for (auto& call : calls) {
    const auto answer = call.get();
    REQUIRE_OK(answer);
    CHECK(answer->image_ref() == made["image_id"]);
  }
}

TEST_CASE("A pull whose client gave up is finished by the next one") {
  OnNode on;
  const Json made = on.node.MakeImage("impatient:1", {"--layer-random", "30M"});
  const auto given_up = on.cri.Pull(made["ref"], std::chrono::milliseconds(5));
  if (!given_up.ok()) CHECK(given_up.code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  REQUIRE_OK(on.cri.Pull(made["ref"]));
}

TEST_CASE("An image in use can be removed by name; its containers run on") {
  OnNode on;
  const Json made = on.node.MakeImage("used:1", {"--layer-file", "made/file=still here"});
  REQUIRE_OK(on.cri.Pull(made["ref"]));
  const auto pod_config = on.node.PodConfig("used", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {"sleep", "1000"});
  config.mutable_image()->set_image(made["ref"]);
  const std::string id = on.Running(pod, pod_config, config);
  on.cri.RemoveImage(made["ref"]);  // refused or done: both are legal
  CHECK(on.cri.ExecSync(id, {"cat", "/made/file"})->stdout() == "still here");
}

TEST_CASE("ImageFsInfo names a directory that is there") {
  OnNode on;
  on.node.Busybox();
  const auto info = on.cri.Call(&Image::ImageFsInfo, cri::ImageFsInfoRequest());
  REQUIRE_OK(info);
  REQUIRE(info->image_filesystems_size() == 1);
  const auto& usage = info->image_filesystems(0);
  CHECK(os::IsDirectory(usage.fs_id().mountpoint()));
  CHECK(usage.timestamp() > 0);
  CHECK(usage.used_bytes().value() > 0);
  CHECK(usage.inodes_used().value() > 0);
}

TEST_CASE("The user of an image is in its status") {
  OnNode on;
  const Json number = on.node.MakeImage("user:1", {"--user", "1002:1003"});
  const Json name = on.node.MakeImage("user:2", {"--user", "www-data:33"});
  REQUIRE_OK(on.cri.Pull(number["ref"]));
  REQUIRE_OK(on.cri.Pull(name["ref"]));
  CHECK(on.cri.ImageStatus(number["ref"])->image().uid().value() == 1002);
  CHECK(on.cri.ImageStatus(number["ref"])->image().username().empty());
  CHECK(on.cri.ImageStatus(name["ref"])->image().username() == "www-data");
  CHECK_FALSE(on.cri.ImageStatus(name["ref"])->image().has_uid());
}

}  // namespace
}  // namespace crisp::harness
