#include "libs/base/closest.h"

#include <catch2/catch.hpp>

namespace crisp {

TEST_CASE("the word that was meant is the nearest one, if any is near") {
  const std::vector<std::string> known = {"images", "inspect", "status", "stats", "stop", "ps"};
  CHECK(Closest("satus", known) == "status");
  CHECK(Closest("staus", known) == "status");
  CHECK(Closest("inpsect", known) == "inspect");
  CHECK(Closest("IMAGE", known) == "images");
  CHECK(Closest("stpo", known) == "stop");
  CHECK(Closest("pss", known) == "ps");
  CHECK(Closest("frobnicate", known).empty());
  CHECK(Closest("xy", known).empty());
  CHECK(Closest("", known).empty());
  CHECK(Closest("status", {}).empty());
  CHECK(Closest(std::string(1000, 's'), known).empty());
  CHECK(DidYouMean("imges", known) == " (did you mean 'images'?)");
  CHECK(DidYouMean("zzz", known).empty());
}

}  // namespace crisp
