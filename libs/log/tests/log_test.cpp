#include "libs/log/log.h"

#include "libs/base/ids.h"

using namespace std::chrono_literals;

namespace crisp::log {

TEST_CASE("a text line is the event and key=value, quoted where needed") {
  CHECK(
      Render(Format::kText, Level::kInfo, "container exited",
             {{"container", ContainerId("abc")}, {"code", 137}, {"oom", true}, {"took", 1500ms}}) ==
      "info  container exited container=abc code=137 oom=true took=1.5");
  CHECK(Render(Format::kText, Level::kWarn, "x", {{"error", NotFound("no \"it\"\n")}}) ==
        R"(warn  x error="NOT_FOUND: no \"it\"\n")");
}

TEST_CASE("a JSON line parses whatever the bytes") {
  const std::string line =
      Render(Format::kJson, Level::kError, "odd",
             {{"bytes", std::string("a\xff\x01\"\\ü€\xf0\x9f\x98\x80\xed\xa0\x80")},
              {"n", -3},
              {"f", 0.5},
              {"inf", std::numeric_limits<double>::infinity()}});
  const auto json = nlohmann::json::parse(line);
  CHECK(json["event"] == "odd");
  CHECK(json["level"] == "error");
  CHECK(json["n"] == -3);
  CHECK(json["f"] == 0.5);
  CHECK(json["inf"] == "inf");
  CHECK(json["bytes"].get<std::string>().starts_with("a\xEF\xBF\xBD\x01\"\\ü€"));
}

TEST_CASE("levels and formats are parsed strictly") {
  CHECK(ParseLevel("trace").value() == Level::kTrace);
  CHECK(ParseLevel("debug").value() == Level::kDebug);
  CHECK(ParseLevel("fatal").value() == Level::kFatal);
  CHECK(ParseLevel("panic").code() == Code::kInvalidArgument);
  CHECK(ParseLevel("INFO").code() == Code::kInvalidArgument);
  CHECK(ParseFormat("json").value() == Format::kJson);
  CHECK(ParseFormat("").code() == Code::kInvalidArgument);
}

TEST_CASE("a level below the set one is not enabled") {
  SetLevel(Level::kWarn);
  CHECK_FALSE(Enabled(Level::kInfo));
  CHECK(Enabled(Level::kError));
  SetLevel(Level::kFatal);
  CHECK_FALSE(Enabled(Level::kError));
  CHECK(Enabled(Level::kFatal));
  SetLevel(Level::kTrace);
  CHECK(Enabled(Level::kTrace));
  SetLevel(Level::kInfo);
  CHECK_FALSE(Enabled(Level::kDebug));
}

}  // namespace crisp::log
