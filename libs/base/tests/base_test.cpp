#include <catch2/catch.hpp>

#include <cerrno>

#include "libs/base/call_context.h"
#include "libs/base/cleanup.h"
#include "libs/base/guarded.h"
#include "libs/base/ids.h"
#include "libs/base/quantity.h"
#include "libs/base/result.h"
#include "libs/base/status.h"
#include "libs/base/try.h"

namespace crisp {
namespace {

Result<int> Half(int n) {
  if (n % 2 != 0) return InvalidArgument("{} is odd", n);
  return n / 2;
}

Result<int> Quarter(int n) {
  const int half = CRISP_TRY(Half(n));
  return CRISP_TRY(Half(half));
}

TEST_CASE("A Status keeps its code and errno while context is put before its message") {
  const Status status =
      Status::Errno(ENOENT, "openat {}", "etc/passwd").While("find user {}", "joe");
  CHECK(status.code() == Code::kNotFound);
  CHECK(status.error() == ENOENT);
  CHECK(status.message() == "find user joe: openat etc/passwd: No such file or directory");
  CHECK(Status::Ok().While("nothing").ok());
}

TEST_CASE("CRISP_TRY hands on the value or leaves with the first failure") {
  CHECK(*Quarter(12) == 3);
  CHECK(Quarter(6).status().message() == "3 is odd");
  CHECK(Quarter(5).code() == Code::kInvalidArgument);
}

TEST_CASE("A code has the name that gRPC gives it") {
  CHECK(CodeName(Code::kFailedPrecondition) == "FAILED_PRECONDITION");
  CHECK(CodeName(static_cast<Code>(99)) == "CODE_99");
}

TEST_CASE("A Cleanup runs once, and not after Dismiss") {
  int runs = 0;
  {
    Cleanup first([&runs] { ++runs; });
    const Cleanup moved = std::move(first);
  }
  CHECK(runs == 1);
  {
    Cleanup dismissed([&runs] { ++runs; });
    dismissed.Dismiss();
  }
  CHECK(runs == 1);
}

TEST_CASE("New ids are 64 lower-case hexadecimal characters and differ") {
  RandomIds ids;
  const std::string one = ids.Next();
  CHECK(IsFullId(one));
  CHECK(one != ids.Next());
  CHECK(IsIdOrPrefix(one.substr(0, 13)));
  CHECK_FALSE(IsIdOrPrefix("../etc"));
  CHECK_FALSE(IsIdOrPrefix("ABC"));
  CHECK_FALSE(IsIdOrPrefix(""));
  CHECK_FALSE(IsIdOrPrefix(one + "0"));
}

TEST_CASE("A call whose deadline passed or whose caller left says so") {
  CHECK(CallContext().Check().ok());
  CHECK(CallContext::Background(std::chrono::seconds(-1)).Check().code() ==
        Code::kDeadlineExceeded);
  std::stop_source stop;
  const CallContext call(SteadyTime::max(), stop.get_token(), "r1");
  stop.request_stop();
  CHECK(call.Check().code() == Code::kCancelled);
  CHECK(call.Detached(std::chrono::seconds(5)).Check().ok());
  CHECK(call.Detached(std::chrono::seconds(5)).request_id() == "r1");
}

TEST_CASE("A Guarded value is changed under its lock") {
  Guarded<int> value(1);
  *value.lock() += 1;
  CHECK(*value.lock() == 2);
}

TEST_CASE("Quantities as Kubernetes writes them") {
  CHECK(ParseQuantity("10M").value() == 10'000'000);
  CHECK(ParseQuantity("1.5k").value() == 1500);
  CHECK(ParseQuantity("2e3").value() == 2000);
  CHECK(ParseQuantity("1Gi").value() == 1073741824);
  CHECK(ParseQuantity("100m").value() == 1);
  for (const char* bad : {"", "M", "-1", "1X", "1e30", "nan", "inf", "1 M"}) {
    INFO(bad);
    CHECK(ParseQuantity(bad).code() == Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace crisp
