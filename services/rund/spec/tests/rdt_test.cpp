#include "services/rund/spec/rdt.h"

#include <catch2/catch.hpp>

#include "services/rund/spec/tests/fixture.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

/// A node whose resctrl has the groups gold and silver.
struct Fixture : SpecFixture {
  Fixture() {
    for (const char* file : {"schemata", "gold/schemata", "silver/schemata", "info/schemata"}) {
      root.Write(std::string("resctrl/") + file, "L3:0=f\n");
    }
  }
  json Rdt() const { return Build().value().spec["linux"].value("intelRdt", json()); }
};

TEST_CASE("The RDT class of a container is the one that its annotations name") {
  Fixture f;
  CHECK(f.Rdt().is_null());
  (*f.sandbox.mutable_annotations())["rdt.resources.beta.kubernetes.io/pod"] = "gold";
  CHECK(f.Rdt() == json{{"closID", "gold"}});
  (*f.sandbox.mutable_annotations())["rdt.resources.beta.kubernetes.io/container.main"] = "silver";
  CHECK(f.Rdt() == json{{"closID", "silver"}});
  (*f.config.mutable_annotations())["io.kubernetes.cri.rdt-class"] = "gold";
  CHECK(f.Rdt() == json{{"closID", "gold"}});
}

TEST_CASE("An RDT class that cannot be had is an error that names it") {
  Fixture f;
  const auto refused = [&f](const std::string& name, const std::string& words) {
    (*f.config.mutable_annotations())["io.kubernetes.cri.rdt-class"] = name;
    const Status status = f.Build().status();
    INFO(status.ToString());
    return status.code() == Code::kInvalidArgument &&
           status.message().find("\"" + name + "\"") != std::string::npos &&
           status.message().find(words) != std::string::npos;
  };
  CHECK(refused("bronze", "resctrl has not"));
  CHECK(refused("info", "no name"));
  CHECK(refused("../gold", "no name"));
  CHECK(refused("..", "no name"));
  f.defaults.host.resctrl = f.root / "absent";
  CHECK(refused("gold", "no resctrl file system"));
}

}  // namespace
}  // namespace crisp::rund
