#include "services/rund/spec/mounts.h"

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "services/rund/spec/cri_mount.h"
#include "services/rund/spec/tests/fixture.h"
#include "services/rund/spec/volumes.h"

using namespace crisp;
using namespace crisp::rund;
using Texts = std::vector<std::string>;

namespace {

Texts Destinations(const BuiltSpec& built) {
  Texts paths;
  for (const auto& mount : built.spec["mounts"]) paths.push_back(mount["destination"]);
  return paths;
}

nlohmann::json MountAt(const BuiltSpec& built, const std::string& path) {
  for (const auto& mount : built.spec["mounts"]) {
    if (mount["destination"] == path) return mount;
  }
  return {};
}

bool Has(const Texts& texts, const std::string& text) {
  return std::find(texts.begin(), texts.end(), text) != texts.end();
}

}  // namespace

TEST_CASE("A mount of the CRI takes the place of our defaults at and below it") {
  SpecFixture fixture;
  fixture.pod_files.hosts = "/pod/hosts";
  fixture.root.Write("h/file", "");
  fixture.AddMount("/dev/", fixture.root / "h");
  fixture.AddMount("/etc/hosts", fixture.root / "h/file");
  const BuiltSpec built = fixture.Build().value();
  const Texts paths = Destinations(built);
  CHECK(MountAt(built, "/dev")["type"] == "bind");
  CHECK_FALSE(Has(paths, "/dev/pts"));
  CHECK_FALSE(Has(paths, "/dev/shm"));
  CHECK(MountAt(built, "/etc/hosts")["source"] == fixture.root / "h/file");
  CHECK(std::count(paths.begin(), paths.end(), "/etc/hosts") == 1);
}

TEST_CASE("Mounts come by depth, and of two at one place the last") {
  SpecFixture fixture;
  fixture.root.Write("h/a/file", "");
  fixture.AddMount("/x/y/z", fixture.root / "h");
  fixture.AddMount("/x", fixture.root / "h");
  fixture.AddMount("x//", fixture.root / "h/a");
  const BuiltSpec built = fixture.Build().value();
  const Texts paths = Destinations(built);
  CHECK(std::count(paths.begin(), paths.end(), "/x") == 1);
  CHECK(MountAt(built, "/x")["source"] == fixture.root / "h/a");
  CHECK(paths.back() == "/x/y/z");
}

TEST_CASE("A missing host path becomes a directory, a link is resolved") {
  SpecFixture fixture;
  fixture.root.Write("h/real/file", "");
  REQUIRE(symlink("real", (fixture.root / "h/link").c_str()) == 0);
  REQUIRE(symlink("gone", (fixture.root / "h/dangling").c_str()) == 0);
  fixture.AddMount("/a", fixture.root / "h/new/dir");
  fixture.AddMount("/b", fixture.root / "h/link");
  const BuiltSpec built = fixture.Build().value();
  struct stat info {};
  REQUIRE(stat((fixture.root / "h/new/dir").c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0755);
  CHECK(MountAt(built, "/b")["source"] == fixture.root / "h/real");

  fixture.AddMount("/c", fixture.root / "h/dangling");
  CHECK(fixture.Build().code() == Code::kInvalidArgument);
}

TEST_CASE("Host paths that nobody should make are not made") {
  SpecFixture fixture;
  fixture.defaults.never_created_host_paths = {fixture.root / "never"};
  fixture.AddMount("/a", fixture.root / "never/");
  const Status refused = fixture.Build().status();
  CHECK(refused.code() == Code::kFailedPrecondition);
  CHECK(refused.message().starts_with("mounts[0].host_path"));
  CHECK(access((fixture.root / "never").c_str(), F_OK) != 0);
}

TEST_CASE("Propagation is passed on where the host's mount has it, and refused where not") {
  SpecFixture fixture;
  fixture.root.Write("h/file", "");
  runtime::v1::Mount& mount = fixture.AddMount("/a", fixture.root / "h");
  CHECK(MountAt(fixture.Build().value(), "/a")["options"] == Texts{"rbind", "rprivate", "rw"});

  mount.set_propagation(runtime::v1::PROPAGATION_HOST_TO_CONTAINER);
  CHECK(fixture.Build().code() == Code::kInvalidArgument);
  mount.set_propagation(runtime::v1::PROPAGATION_BIDIRECTIONAL);
  CHECK(fixture.Build().code() == Code::kInvalidArgument);

  fixture.root.Write("mountinfo", "20 1 8:1 / / rw shared:1 - ext4 /dev/vda rw\n");
  BuiltSpec built = fixture.Build().value();
  CHECK(MountAt(built, "/a")["options"] == Texts{"rbind", "rshared", "rw"});
  CHECK(built.spec["linux"]["rootfsPropagation"] == "rshared");
  mount.set_propagation(runtime::v1::PROPAGATION_HOST_TO_CONTAINER);
  built = fixture.Build().value();
  CHECK(MountAt(built, "/a")["options"] == Texts{"rbind", "rslave", "rw"});
  CHECK(built.spec["linux"]["rootfsPropagation"] == "rslave");
}

TEST_CASE("The mount that holds a path is the deepest, and of two the later") {
  const char* mountinfo =
      "1 0 8:1 / / rw shared:1 - ext4 x rw\n"
      "2 1 8:2 / /a rw master:3 - ext4 x rw\n"
      "3 1 8:2 / /a\\040b rw shared:3 master:4 - ext4 x rw\n"
      "4 1 8:2 / /c rw shared:1 - ext4 x rw\n"
      "5 4 8:2 / /c rw - ext4 x rw\n";
  const auto mounts = os::ParseMounts(mountinfo).value();
  CHECK(PropagationOf(mounts, "/x") == Propagation::kShared);
  CHECK(PropagationOf(mounts, "/a/x") == Propagation::kSlave);
  CHECK(PropagationOf(mounts, "/ab") == Propagation::kShared);
  CHECK(PropagationOf(mounts, "/a b/c") == Propagation::kShared);
  CHECK(PropagationOf(mounts, "/c") == Propagation::kPrivate);
}

TEST_CASE("Recursive read-only needs readonly, PRIVATE and a runtime that can") {
  SpecFixture fixture;
  fixture.root.Write("h/file", "");
  runtime::v1::Mount& mount = fixture.AddMount("/a", fixture.root / "h");
  mount.set_recursive_read_only(true);
  CHECK(fixture.Build().code() == Code::kInvalidArgument);
  mount.set_readonly(true);
  CHECK(MountAt(fixture.Build().value(), "/a")["options"] == Texts{"rbind", "rprivate", "rro"});
  fixture.runtime.recursive_read_only = false;
  const Status status = fixture.Build().status();
  CHECK(status.code() == Code::kUnknown);
  CHECK(status.message().starts_with("RROUnsupported"));
}

TEST_CASE("A mount that cannot be is refused by the name of its field") {
  SpecFixture fixture;
  fixture.root.Write("h/file", "");
  runtime::v1::Mount& mount = fixture.AddMount("/a", fixture.root / "h");
  const runtime::v1::Mount plain = mount;
  const auto message = [&fixture] { return fixture.Build().status().message(); };
  mount.add_uidmappings()->set_length(1);
  CHECK(message().starts_with("mounts[0].uidMappings"));
  mount = plain;
  mount.set_image_sub_path("x");
  CHECK(message().starts_with("mounts[0].image_sub_path"));
  mount = plain;
  mount.mutable_image()->set_image("x");
  CHECK(message().starts_with("mounts[0].host_path"));
  mount.clear_host_path();
  mount.set_image_sub_path("/x");
  CHECK(message().starts_with("mounts[0].image_sub_path"));
  mount.clear_image_sub_path();
  mount.set_propagation(runtime::v1::PROPAGATION_BIDIRECTIONAL);
  CHECK(message().starts_with("mounts[0].propagation"));
  mount.clear_propagation();
  CHECK(message().starts_with("mounts[0].readonly"));
  mount.set_readonly(true);
  mount.add_mount_options("suid");
  CHECK(message().starts_with("mounts[0].mount_options"));
  mount = plain;
  mount.set_host_path("relative");
  CHECK(message().starts_with("mounts[0].host_path"));
  mount = plain;
  mount.set_container_path("/");
  CHECK(message().starts_with("mounts[0].container_path"));
  mount = plain;
  mount.set_selinux_relabel(true);
  CHECK(fixture.Build().ok());  // no labels here: nothing to do
}

TEST_CASE("Mounts of a pod with a user namespace are mapped as the pod is, and not otherwise") {
  SpecFixture fixture;
  fixture.root.Write("h/file", "");
  const auto map = [](runtime::v1::Mount& mount, std::uint32_t uids, std::uint32_t gids) {
    mount.clear_uidmappings();
    mount.clear_gidmappings();
    for (auto* ids : {mount.add_uidmappings(), mount.add_gidmappings()}) ids->set_length(65536);
    mount.mutable_uidmappings(0)->set_host_id(uids);
    mount.mutable_gidmappings(0)->set_host_id(gids);
  };
  runtime::v1::Mount& mount = fixture.AddMount("/a", fixture.root / "h");
  map(mount, 100000, 200000);
  runtime::v1::Mount& image = fixture.AddMount("/image", "");
  image.mutable_image()->set_image("sha256:1");
  image.set_readonly(true);
  map(image, 100000, 200000);
  const auto message = [&fixture] { return fixture.Build().status().message(); };
  CHECK(message().starts_with("mounts[0].uidMappings: the pod has no user namespace"));

  fixture.pod_files.userns =
      UserNamespace{"/run/pod/user", os::IdRange{0, 100000, 65536}, os::IdRange{0, 200000, 65536}};
  fixture.config.set_working_dir("/");
  CHECK(message() == "mounts[0].uidMappings: runtime handler \"runc\" has no ID-mapped mounts");
  fixture.runtime.idmapped_mounts = true;
  const BuiltSpec built = fixture.Build().value();
  const auto mapping = [](int host) {
    return nlohmann::json::array({{{"containerID", 0}, {"hostID", host}, {"size", 65536}}});
  };
  CHECK(MountAt(built, "/a")["uidMappings"] == mapping(100000));
  CHECK(MountAt(built, "/a")["gidMappings"] == mapping(200000));
  // The host's mount is mapped already, and so is what is the pod's own.
  CHECK_FALSE(MountAt(built, "/image").contains("uidMappings"));
  CHECK_FALSE(MountAt(built, "/dev/shm").contains("uidMappings"));

  map(mount, 100000, 100000);
  CHECK(message().starts_with("mounts[0].gidMappings"));
  map(mount, 100001, 200000);
  CHECK(message().starts_with("mounts[0].uidMappings"));
  map(mount, 100000, 200000);
  mount.add_uidmappings()->set_length(1);
  CHECK(message().starts_with("mounts[0].uidMappings"));
  map(mount, 100000, 200000);
  map(image, 1, 200000);
  CHECK(message().starts_with("mounts[1].uidMappings"));
}

TEST_CASE("Of mount options the last word on a flag counts; what is no flag is refused") {
  SpecFixture fixture;
  fixture.root.Write("h/file", "");
  runtime::v1::Mount& mount = fixture.AddMount("/a", fixture.root / "h");
  for (const char* option : {"noexec", "nodev", "suid", "nosuid", "exec", "noatime"}) {
    mount.add_mount_options(option);
  }
  CHECK(MountAt(fixture.Build().value(), "/a")["options"] ==
        Texts{"rbind", "rprivate", "rw", "nodev", "nosuid", "exec", "noatime"});
  for (const char* bad : {"ro", "rshared", "bind", "size=1m", ""}) {
    mount.set_mount_options(0, bad);
    CHECK(fixture.Build().status().message().starts_with("mounts[0].mount_options"));
  }
}

TEST_CASE("An image is mounted by the host and bound read-only, without rights of its own") {
  SpecFixture fixture;
  runtime::v1::Mount& mount = fixture.AddMount("/data", "");
  mount.mutable_image()->set_image("sha256:1");
  mount.set_image_sub_path("models/a");
  mount.set_readonly(true);
  mount.add_mount_options("noatime");
  const BuiltSpec built = fixture.Build().value();
  REQUIRE(built.host_mounts.size() == 1);
  CHECK(built.host_mounts[0].index == 0);
  CHECK(built.host_mounts[0].target == fixture.root / "mounts/0");
  CHECK(built.host_mounts[0].image_sub_path == "models/a");
  const auto entry = MountAt(built, "/data");
  CHECK(entry["source"] == fixture.root / "mounts/0");
  CHECK(entry["options"] == Texts{"rbind", "rprivate", "ro", "nosuid", "nodev", "noatime"});
  // Another mount in its place: nothing to mount before.
  fixture.root.Write("h/file", "");
  fixture.AddMount("/data/", fixture.root / "h");
  CHECK(fixture.Build().value().host_mounts.empty());
}

TEST_CASE("An image is mounted recursively read-only where that is asked for and can be done") {
  SpecFixture fixture;
  auto& mount = *fixture.config.add_mounts();
  mount.set_container_path("/models");
  mount.mutable_image()->set_image("sha256:" + std::string(64, 'd'));
  mount.set_recursive_read_only(true);
  CHECK(fixture.Build().status().message().starts_with("mounts[0].recursive_read_only"));
  mount.set_readonly(true);
  CHECK(MountAt(fixture.Build().value(), "/models")["options"] ==
        Texts{"rbind", "rprivate", "rro", "nosuid", "nodev"});
  fixture.runtime.recursive_read_only = false;
  CHECK(fixture.Build().status().message().starts_with("RROUnsupported"));
}

TEST_CASE("Who mounts what holds our own directories follows what is unmounted there") {
  SpecFixture fixture;
  fixture.root.Write("h/state/x", "");
  fixture.defaults.storage_roots = {fixture.root / "h/state"};
  fixture.AddMount("/host", fixture.root / "h");
  fixture.AddMount("/x", fixture.root / "h/state/x");
  CHECK(MountAt(fixture.Build().value(), "/host")["options"] == Texts{"rbind", "rprivate", "rw"});
  fixture.root.Write("mountinfo", "20 1 8:1 / / rw shared:1 - ext4 /dev/vda rw\n");
  const BuiltSpec built = fixture.Build().value();
  CHECK(MountAt(built, "/host")["options"] == Texts{"rbind", "rslave", "rw"});
  CHECK(MountAt(built, "/x")["options"] == Texts{"rbind", "rprivate", "rw"});
  CHECK(built.spec["linux"]["rootfsPropagation"] == "rslave");
}

TEST_CASE("A VOLUME keeps attributes and hard links, and is not copied beyond the call") {
  SpecFixture fixture;
  const std::string file = fixture.root.Write("rootfs/data/sub/file", "text");
  REQUIRE(setxattr(file.c_str(), "user.kept", "v", 1, 0) == 0);
  REQUIRE(link(file.c_str(), (fixture.root / "rootfs/data/again").c_str()) == 0);
  const auto rootfs = os::Beneath::Open(fixture.root / "rootfs", os::Scope::kInRoot);
  REQUIRE(rootfs.ok());
  const std::string target = fixture.root / "copy";
  const CallContext over = CallContext::Background(std::chrono::seconds(-1));
  CHECK(MakeVolume(over, *rootfs, "/data", target, {}).code() == Code::kDeadlineExceeded);
  CHECK(access(target.c_str(), F_OK) != 0);
  const Status made = MakeVolume(CallContext(), *rootfs, "/data", target, {});
  INFO(made.ToString());
  REQUIRE(made.ok());
  std::array<char, 8> value{};
  CHECK(getxattr((target + "/sub/file").c_str(), "user.kept", value.data(), value.size()) == 1);
  struct stat one {};
  struct stat other {};
  REQUIRE(stat((target + "/sub/file").c_str(), &one) == 0);
  REQUIRE(stat((target + "/again").c_str(), &other) == 0);
  CHECK(one.st_ino == other.st_ino);
  CHECK(one.st_nlink == 2);
}

TEST_CASE("A VOLUME that the image has no directory for belongs to the container's root") {
  SpecFixture fixture;
  fixture.config.set_working_dir("/");
  fixture.image.set_config_json(R"({"config":{"Volumes":{"/none":{}}}})");
  REQUIRE(fixture.Build().ok());
  struct stat info {};
  REQUIRE(stat((fixture.root / "volumes/0").c_str(), &info) == 0);
  CHECK(info.st_uid == 0);
  REQUIRE(rmdir((fixture.root / "volumes/0").c_str()) == 0);
  fixture.pod_files.userns =
      UserNamespace{"/run/pod/user", os::IdRange{0, 100000, 65536}, os::IdRange{0, 200000, 65536}};
  REQUIRE(fixture.Build().ok());
  REQUIRE(stat((fixture.root / "volumes/0").c_str(), &info) == 0);
  CHECK(info.st_uid == 100000);
  CHECK(info.st_gid == 200000);
}

TEST_CASE("A VOLUME of the image is a copy of what the image has there") {
  SpecFixture fixture;
  fixture.root.Write("rootfs/data/sub/file", "text", 0640);
  REQUIRE(symlink("sub/file", (fixture.root / "rootfs/data/link").c_str()) == 0);
  REQUIRE(chmod((fixture.root / "rootfs/data").c_str(), 01777) == 0);
  fixture.root.Write("h/file", "");
  fixture.AddMount("/covered", fixture.root / "h");
  fixture.image.set_config_json(
      R"({"config":{"Volumes":{"/data":{},"/empty/":{},"/covered/x":{},"/proc":{}}}})");
  BuiltSpec built = fixture.Build().value();
  const std::string source = MountAt(built, "/data")["source"];
  CHECK(source.starts_with(fixture.root / "volumes/"));
  CHECK(fixture.root.Read("volumes/0/sub/file") == "text");
  struct stat info {};
  REQUIRE(stat(source.c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 01777);
  REQUIRE(stat((source + "/sub/file").c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0640);
  REQUIRE(lstat((source + "/link").c_str(), &info) == 0);
  CHECK(S_ISLNK(info.st_mode));
  CHECK_FALSE(Has(Destinations(built), "/covered/x"));
  CHECK(MountAt(built, "/proc")["type"] == "proc");
  CHECK(MountAt(built, "/empty")["options"] == Texts{"rbind", "rprivate", "rw"});

  // Built again, as after a crash: the same directories, what is in them stays.
  fixture.root.Write("volumes/0/sub/file", "changed");
  built = fixture.Build().value();
  CHECK(MountAt(built, "/data")["source"] == source);
  CHECK(fixture.root.Read("volumes/0/sub/file") == "changed");
}
