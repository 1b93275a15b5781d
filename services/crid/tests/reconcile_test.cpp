#include "services/crid/core/reconcile.h"

#include <catch2/catch.hpp>

using namespace crisp;
using namespace crisp::crid;

TEST_CASE("Reconciles are in trouble when several fail in a row, which is said once") {
  ReconcileStreak streak;
  const Status away = Unavailable("netd is away");
  CHECK_FALSE(streak.Done(away));
  CHECK_FALSE(streak.Done(away));
  CHECK(streak.trouble().ok());
  CHECK(streak.Done(Internal("disk")));
  CHECK(streak.trouble().message() == "disk");
  CHECK_FALSE(streak.Done(away));
  CHECK(streak.trouble().code() == Code::kUnavailable);
  CHECK_FALSE(streak.Done(Status::Ok()));
  CHECK(streak.trouble().ok());
}
