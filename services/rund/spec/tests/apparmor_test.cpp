#include "services/rund/spec/apparmor.h"

#include <catch2/catch.hpp>

#include "services/rund/spec/tests/fixture.h"

using namespace crisp;
using namespace crisp::rund;
using runtime::v1::SecurityProfile;

namespace {

struct WithAppArmor : SpecFixture {
  WithAppArmor() {
    defaults.host.apparmor = true;
    defaults.host.apparmor_profiles =
        root.Write("profiles", "crisp-default (enforce)\nmine (complain)\nother-mine (enforce)\n");
    defaults.apparmor_profile = "crisp-default";
  }
  /// The profile, or the error's code.
  std::string Profile() {
    const auto built = Build();
    if (!built.ok()) return CodeName(built.code());
    return built->spec["process"].value("apparmorProfile", "none");
  }
};

}  // namespace

TEST_CASE("Without AppArmor only a profile that is asked for by name is an error") {
  SpecFixture fixture;
  CHECK(fixture.Build().ok());
  auto& apparmor = *fixture.security().mutable_apparmor();
  CHECK(fixture.Build().ok());
  apparmor.set_profile_type(SecurityProfile::Localhost);
  apparmor.set_localhost_ref("mine");
  CHECK(fixture.Build().code() == Code::kFailedPrecondition);
  fixture.security().clear_apparmor();
  fixture.security().set_apparmor_profile("localhost/mine");
  CHECK(fixture.Build().code() == Code::kFailedPrecondition);
  fixture.security().set_apparmor_profile("runtime/default");
  CHECK(fixture.Build().ok());
}

TEST_CASE("With AppArmor the default profile is for all that do not say otherwise") {
  WithAppArmor fixture;
  CHECK(fixture.Profile() == "crisp-default");
  auto& apparmor = *fixture.security().mutable_apparmor();
  CHECK(fixture.Profile() == "crisp-default");
  apparmor.set_profile_type(SecurityProfile::Unconfined);
  fixture.security().set_apparmor_profile("localhost/mine");  // the new field wins
  CHECK(fixture.Profile() == "none");
  apparmor.set_profile_type(SecurityProfile::Localhost);
  apparmor.set_localhost_ref("localhost/other-mine");
  CHECK(fixture.Profile() == "other-mine");
  apparmor.set_localhost_ref("not-loaded");
  CHECK(fixture.Profile() == "FAILED_PRECONDITION");
  fixture.security().clear_apparmor();
  CHECK(fixture.Profile() == "mine");
  fixture.security().set_apparmor_profile("unconfined");
  CHECK(fixture.Profile() == "none");
}

TEST_CASE("A default profile that is not loaded fails those that ask for it, not the rest") {
  WithAppArmor fixture;
  fixture.defaults.apparmor_profile = "gone";
  CHECK(fixture.Profile() == "none");
  fixture.security().mutable_apparmor();
  CHECK(fixture.Profile() == "FAILED_PRECONDITION");
}

TEST_CASE("Where no list of profiles is mounted only those that ask for one fail") {
  WithAppArmor fixture;
  fixture.defaults.host.apparmor_profiles = fixture.root / "absent";
  CHECK(fixture.Profile() == "none");
  CHECK(fixture.Build()->notes.size() == 1);
  fixture.security().set_apparmor_profile("localhost/mine");
  CHECK(fixture.Profile() == "FAILED_PRECONDITION");
  fixture.security().mutable_apparmor();
  CHECK(fixture.Profile() == "FAILED_PRECONDITION");
  CHECK(fixture.Build().status().message().starts_with("linux.security_context.apparmor"));
}

TEST_CASE("A privileged container has no AppArmor profile") {
  WithAppArmor fixture;
  fixture.security().set_privileged(true);
  fixture.sandbox.mutable_linux()->mutable_security_context()->set_privileged(true);
  fixture.security().mutable_apparmor();
  fixture.root.Write("dev/x", "");
  CHECK(fixture.Profile() == "none");
  fixture.security().mutable_apparmor()->set_profile_type(SecurityProfile::Localhost);
  fixture.security().mutable_apparmor()->set_localhost_ref("mine");
  CHECK(fixture.Profile() == "none");
}
