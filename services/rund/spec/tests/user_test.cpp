#include "services/rund/spec/user.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "services/rund/spec/tests/fixture.h"

using namespace crisp;
using namespace crisp::rund;
using Groups = std::vector<std::uint32_t>;

namespace {

struct UserFixture : SpecFixture {
  Result<ResolvedUser> Resolve(std::string_view image_user = "") {
    const os::Beneath rootfs = os::Beneath::Open(root / "rootfs", os::Scope::kInRoot).value();
    return ResolveUser(rootfs, security(), image_user);
  }
};

}  // namespace

TEST_CASE("Without a word from anybody the user is root with root's home") {
  UserFixture fixture;
  const ResolvedUser user = fixture.Resolve().value();
  CHECK(user.uid == 0);
  CHECK(user.groups == Groups{0});
  CHECK(user.home == "/root");
}

TEST_CASE("All forms of an image's user are looked up in the image") {
  UserFixture fixture;
  CHECK(fixture.Resolve("web")->uid == 1000);
  CHECK(fixture.Resolve("web")->gid == 1001);
  CHECK(fixture.Resolve("web")->home == "/srv/web");
  CHECK(fixture.Resolve("1000")->gid == 1001);
  CHECK(fixture.Resolve("web:staff")->gid == 50);
  CHECK(fixture.Resolve("1000:7")->gid == 7);
  CHECK(fixture.Resolve("4711")->gid == 0);
  CHECK(fixture.Resolve("4711")->home == "/");
  CHECK(fixture.Resolve("4711:staff")->gid == 50);
  CHECK(fixture.Resolve("absent").code() == Code::kInvalidArgument);
  CHECK(fixture.Resolve("web:absent").code() == Code::kInvalidArgument);
}

TEST_CASE("The CRI's user stands before the image's") {
  UserFixture fixture;
  fixture.security().set_run_as_username("web");
  CHECK(fixture.Resolve("nobody")->uid == 1000);
  fixture.security().mutable_run_as_user()->set_value(65534);
  CHECK(fixture.Resolve("web:staff")->uid == 65534);
  CHECK(fixture.Resolve("web:staff")->gid == 65534);
  fixture.security().mutable_run_as_group()->set_value(9);
  CHECK(fixture.Resolve()->gid == 9);
}

TEST_CASE("A username that the image lacks, a group alone and bad ids are refused") {
  UserFixture fixture;
  fixture.security().mutable_run_as_group()->set_value(9);
  CHECK(fixture.Resolve("web").code() == Code::kInvalidArgument);
  fixture.security().clear_run_as_group();
  fixture.security().set_run_as_username("1000");
  CHECK(fixture.Resolve().code() == Code::kInvalidArgument);
  fixture.security().clear_run_as_username();
  fixture.security().mutable_run_as_user()->set_value(-1);
  CHECK(fixture.Resolve().code() == Code::kInvalidArgument);
  fixture.security().mutable_run_as_user()->set_value(4294967295);
  CHECK(fixture.Resolve().code() == Code::kInvalidArgument);
}

TEST_CASE("Merge adds the image's groups of the user, Strict does not, others are refused") {
  UserFixture fixture;
  fixture.security().mutable_run_as_user()->set_value(1000);
  fixture.security().add_supplemental_groups(7000);
  fixture.security().add_supplemental_groups(44);
  CHECK(fixture.Resolve()->groups == Groups{1001, 44, 50, 7000});
  fixture.security().set_supplemental_groups_policy(runtime::v1::Strict);
  CHECK(fixture.Resolve()->groups == Groups{1001, 44, 7000});
  fixture.security().set_supplemental_groups_policy(
      static_cast<runtime::v1::SupplementalGroupsPolicy>(7));
  CHECK(fixture.Resolve().code() == Code::kInvalidArgument);
}

TEST_CASE("An image without passwd and group has numbers only") {
  UserFixture fixture;
  REQUIRE(unlink((fixture.root / "rootfs/etc/passwd").c_str()) == 0);
  REQUIRE(unlink((fixture.root / "rootfs/etc/group").c_str()) == 0);
  CHECK(fixture.Resolve("1000:1000")->gid == 1000);
  CHECK(fixture.Resolve()->uid == 0);
  CHECK(fixture.Resolve("root").code() == Code::kInvalidArgument);
}

TEST_CASE("The host's passwd is never read, nor a FIFO waited for") {
  UserFixture fixture;
  const std::string passwd = fixture.root / "rootfs/etc/passwd";
  REQUIRE(unlink(passwd.c_str()) == 0);
  fixture.root.Write("secret", "spy:x:77:77::/:/bin/sh\n");
  REQUIRE(symlink((fixture.root / "secret").c_str(), passwd.c_str()) == 0);
  CHECK(fixture.Resolve("spy").code() == Code::kInvalidArgument);
  REQUIRE(unlink(passwd.c_str()) == 0);
  REQUIRE(mkfifo(passwd.c_str(), 0600) == 0);
  CHECK_FALSE(fixture.Resolve("web").ok());
}
