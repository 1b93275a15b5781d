#include "services/rund/spec/hooks.h"

#include <catch2/catch.hpp>

#include "services/rund/spec/tests/fixture.h"

using namespace crisp;
using namespace crisp::rund;
using nlohmann::json;

namespace {

std::string Hook(const std::string& when, const std::string& path = "/bin/hook") {
  return R"({"version":"1.0.0","hook":{"path":")" + path +
         R"(","args":["hook","x"],"timeout":5},"when":)" + when +
         R"(,"stages":["createRuntime","poststop"]})";
}

bool Matches(const std::string& when, const HookSubject& subject) {
  return HookFile::Parse(Hook(when)).value().Matches(subject);
}

}  // namespace

TEST_CASE("A hook is for containers that meet all of its conditions") {
  const std::map<std::string, std::string> annotations = {{"gpu.vendor.com/use", "yes"},
                                                          {"other", "no"}};
  const HookSubject subject{annotations, "/usr/bin/app", true};
  CHECK(Matches(R"({"always":true})", subject));
  CHECK_FALSE(Matches(R"({"always":false})", subject));
  CHECK_FALSE(Matches(R"({"always":false,"hasBindMounts":true})", subject));
  CHECK(Matches(R"({"hasBindMounts":true})", subject));
  CHECK_FALSE(Matches(R"({"hasBindMounts":false})", subject));
  CHECK(Matches(R"({"annotations":{"^gpu\\.":"^yes$"}})", subject));
  CHECK_FALSE(Matches(R"({"annotations":{"^gpu\\.":"^no$"}})", subject));
  CHECK_FALSE(Matches(R"({"annotations":{"^gpu\\.":"yes","absent":".*"}})", subject));
  CHECK(Matches(R"({"commands":["^/sbin/","app$"]})", subject));
  CHECK_FALSE(Matches(R"({"commands":["^app$"],"always":true})", subject));
}

TEST_CASE("What a pod writes costs a hook's pattern no more than a little") {
  const std::string long_text(std::size_t{1} << 20U, 'a');
  const std::map<std::string, std::string> annotations = {{"key", long_text}};
  const HookSubject subject{annotations, "/" + long_text, true};
  CHECK(Matches(R"({"annotations":{"^key$":"^(a|b)*"}})", subject));
  CHECK(Matches(R"({"commands":["^/(a|b)*"]})", subject));
  CHECK_FALSE(Matches(R"({"commands":["c$"]})", subject));
}

TEST_CASE("A hook file that is not of version 1.0.0 says what is wrong") {
  for (const std::string& bad :
       {std::string("{"), std::string(R"({"version":"0.1.0"})"), Hook("{}"),
        Hook(R"({"always":true,"moon":"full"})"), Hook(R"({"commands":["("]})"),
        Hook(R"({"always":true})", "bin/relative"),
        std::string(R"({"version":"1.0.0","hook":{"path":"/h"},"when":{"always":true}})"),
        std::string(
            R"({"version":"1.0.0","hook":{"path":"/h"},"when":{"always":true},"stages":["x"]})")}) {
    INFO(bad);
    CHECK(HookFile::Parse(bad).code() == Code::kInvalidArgument);
  }
}

TEST_CASE("Hooks go into the spec by name; a later directory replaces, changes count at once") {
  SpecFixture fixture;
  fixture.root.Write("low/20.json", Hook(R"({"always":true})", "/low/20"));
  fixture.root.Write("low/10.json", Hook(R"({"always":true})", "/low/10"));
  fixture.root.Write("high/20.json", Hook(R"({"annotations":{"^run$":"1"}})", "/high/20"));
  fixture.root.Write("high/notes.txt", "not a hook");
  fixture.defaults.hooks = std::make_shared<HookDirs>(
      std::vector<std::string>{fixture.root / "low", fixture.root / "high", "/nowhere"});
  (*fixture.config.mutable_annotations())["run"] = "1";
  const json hooks = fixture.Build().value().spec["hooks"];
  CHECK(hooks["createRuntime"].size() == 2);
  CHECK(hooks["createRuntime"][0] ==
        json{{"path", "/low/10"}, {"args", {"hook", "x"}}, {"timeout", 5}});
  CHECK(hooks["createRuntime"][1]["path"] == "/high/20");
  CHECK(hooks["poststop"] == hooks["createRuntime"]);

  fixture.config.clear_annotations();
  CHECK(fixture.Build().value().spec["hooks"]["poststop"].size() == 1);
  fixture.root.Write("high/10.json", "broken");
  const auto built = fixture.Build();
  CHECK(built.code() == Code::kInvalidArgument);
  CHECK(built.status().message().find("high/10.json") != std::string::npos);
}
