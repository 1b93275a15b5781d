#include "services/rund/spec/capabilities.h"

#include <catch2/catch.hpp>

using namespace crisp;
using namespace crisp::rund;
using Texts = std::vector<std::string>;

namespace {

constexpr CapabilityBits kAll = ~CapabilityBits{0};
const Texts kDefaults = {"CHOWN", "CAP_KILL"};

nlohmann::json Bounding(const Texts& add, const Texts& drop, CapabilityBits daemon = kAll) {
  runtime::v1::Capability asked;
  for (const auto& name : add) asked.add_add_capabilities(name);
  for (const auto& name : drop) asked.add_drop_capabilities(name);
  const auto sets = BuildCapabilities(kDefaults, asked, false, true, daemon);
  return sets.ok() ? sets->ToJson()["bounding"] : nlohmann::json(CodeName(sets.code()));
}

}  // namespace

TEST_CASE("Adds and drops work with and without CAP_, in any case") {
  CHECK(Bounding({}, {}) == Texts{"CAP_CHOWN", "CAP_KILL"});
  CHECK(Bounding({"net_raw"}, {"CAP_CHOWN"}) == Texts{"CAP_KILL", "CAP_NET_RAW"});
  CHECK(Bounding({"FLY"}, {}) == "INVALID_ARGUMENT");
  CHECK(Bounding({}, {"FLY"}) == "INVALID_ARGUMENT");
}

TEST_CASE("Add wins over drop ALL, a single drop over add ALL") {
  CHECK(Bounding({"NET_RAW"}, {"ALL"}) == Texts{"CAP_NET_RAW"});
  const auto all_but_one = Bounding({"ALL"}, {"SYS_ADMIN"});
  CHECK(all_but_one.size() == 40);
  CHECK(std::find(all_but_one.begin(), all_but_one.end(), "CAP_SYS_ADMIN") == all_but_one.end());
  CHECK(Bounding({}, {"all"}) == Texts{});
}

TEST_CASE("Nobody gets what the daemon does not have") {
  const CapabilityBits without_resource = kAll & ~(CapabilityBits{1} << 24U);
  CHECK(Bounding({"ALL"}, {}, without_resource).size() == 40);
  CHECK(Bounding({"SYS_RESOURCE"}, {}, without_resource) == "FAILED_PRECONDITION");
  const auto privileged = BuildCapabilities(kDefaults, {}, true, true, without_resource);
  REQUIRE(privileged.ok());
  CHECK(privileged->ToJson()["effective"].size() == 40);
  const auto poor = BuildCapabilities(kDefaults, {}, false, true, 1);
  REQUIRE(poor.ok());
  CHECK(poor->ToJson()["bounding"] == Texts{"CAP_CHOWN"});
  CHECK(poor->notes.size() == 1);
}

TEST_CASE("A user other than root has effective capabilities only if they are ambient") {
  runtime::v1::Capability asked;
  auto sets = BuildCapabilities(kDefaults, asked, false, false, kAll).value();
  CHECK(sets.ToJson()["bounding"].size() == 2);
  CHECK(sets.ToJson()["effective"].empty());
  CHECK(sets.ToJson()["permitted"].empty());
  CHECK(sets.ToJson()["inheritable"].empty());
  asked.add_add_ambient_capabilities("NET_BIND_SERVICE");
  sets = BuildCapabilities(kDefaults, asked, false, false, kAll).value();
  for (const char* set : {"effective", "permitted", "inheritable", "ambient"}) {
    CHECK(sets.ToJson()[set] == Texts{"CAP_NET_BIND_SERVICE"});
  }
  CHECK(sets.ToJson()["bounding"].size() == 3);
}
