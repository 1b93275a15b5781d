#include "libs/daemon/daemon.h"

#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <future>

#include "crisp/daemon/v1/daemon.grpc.pb.h"
#include "libs/base/units.h"
#include "libs/http/server.h"
#include "libs/os/file_lock.h"
#include "libs/os/files.h"
#include "libs/rpc/peer.h"
#include "libs/testing/test_root.h"

using namespace std::chrono_literals;

namespace crisp::daemon {
namespace {

ParsedFlags Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "crisp-rund");
  return ParseFlags(static_cast<int>(arguments.size()), arguments.data(), "rund");
}

struct TestDaemon {
  explicit TestDaemon(const std::string& instance = "1") {
    options.service = "rund";
    options.instance = instance;
    options.config = root.Write("c.yaml", fmt::format("run_root: {0}/r\nstate_root: {0}/s\n"
                                                      "log: {{level: warn}}\n",
                                                      root.path()));
  }
  v1::InfoResponse Info() const {
    const rpc::Peer peer("rund/1", root / "r/rund/1.sock", 10s);
    const auto stub = v1::Daemon::NewStub(peer.channel());
    auto info = rpc::Call(CallContext::Background(10s), peer, *stub, &v1::Daemon::Stub::Info,
                          v1::InfoRequest());
    INFO(info.status().ToString());
    REQUIRE(info.ok());
    return *info;
  }
  v1::OperationsResponse Operations(const std::string& request_id) const {
    const rpc::Peer peer("rund/1", root / "r/rund/1.sock", 10s);
    const auto stub = v1::Daemon::NewStub(peer.channel());
    v1::OperationsRequest request;
    request.set_request_id(request_id);
    auto answer = rpc::Call(CallContext::Background(10s), peer, *stub,
                            &v1::Daemon::Stub::Operations, request);
    INFO(answer.status().ToString());
    REQUIRE(answer.ok());
    return *answer;
  }
  testing::TestRoot root;
  Options options;
};

}  // namespace

TEST_CASE("flags are read and refused by name") {
  const auto parsed =
      Parse({"--config", "/x.yaml", "--instance", "blue-2", "--log-level", "debug"});
  REQUIRE(parsed.options.has_value());
  CHECK(parsed.options->service == "rund");
  CHECK(parsed.options->config == "/x.yaml");
  CHECK(parsed.options->instance == "blue-2");
  CHECK(parsed.options->log_level == "debug");
  CHECK(Parse({}).options->instance == "1");
  CHECK(Parse({"--version"}).exit_code == 0);
  CHECK_FALSE(Parse({"--version"}).options.has_value());
  CHECK(Parse({"--instance", "../x"}).exit_code == 2);
  CHECK(Parse({"--log-level", "loud"}).exit_code == 2);
  CHECK(Parse({"--nonsense"}).exit_code == 2);
}

TEST_CASE("a daemon serves Info and metrics until SIGTERM, then leaves nothing behind") {
  TestDaemon test;
  auto frame = Daemon::Create(test.options);
  INFO(frame.status().ToString());
  REQUIRE(frame.ok());
  Daemon& daemon = **frame;
  daemon.SetProblems([] { return std::vector<Problem>{{"it is late", "go to bed"}}; });
  bool drained = false;
  daemon.OnDrain([&drained] { drained = true; });
  daemon.AddSocket(test.root / "r/extra.sock");
  auto run = std::async(std::launch::async, [&daemon] { return daemon.Run(); });

  const v1::InfoResponse info = test.Info();
  CHECK(info.service() == "rund");
  CHECK(info.instance() == "1");
  CHECK(info.version() == Version());
  CHECK(info.pid() == getpid());
  CHECK(info.config() == test.options.config);
  CHECK(info.commit() == Commit());
  REQUIRE(info.problems_size() == 1);
  CHECK(info.problems(0).hint() == "go to bed");
  CHECK(os::Exists(test.root / "r/extra.sock"));
  struct stat found {};
  REQUIRE(stat((test.root / "r/rund").c_str(), &found) == 0);
  CHECK((found.st_mode & 0777U) == 0711U);

  {
    const auto under_way = daemon.pool().operations().Begin(
        {.kind = "RunPod", .subjects = {"default/web"}, .request_id = "req-1"});
    const work::Stage stage(CallContext().PartOf(under_way), "plugin slow: ADD");
    const v1::OperationsResponse all = test.Operations("");
    REQUIRE(all.under_way_size() == 1);
    CHECK(all.under_way(0).kind() == "RunPod");
    CHECK(all.under_way(0).subjects(0) == "default/web");
    REQUIRE(all.under_way(0).stages_size() == 1);
    CHECK(all.under_way(0).stages(0).what() == "plugin slow: ADD");
    CHECK(all.under_way(0).stages(0).under_way());
    CHECK(all.under_way(0).times().starts_with("plugin slow: ADD "));
    CHECK(test.Operations("req-1").under_way_size() == 1);
    CHECK(test.Operations("req-2").under_way_size() == 0);
    static_cast<void>(under_way->Answer(Internal("it broke")));
  }
  REQUIRE(test.Operations("").failed_size() == 1);
  CHECK(test.Operations("").failed(0).error() == "it broke");

  std::promise<Result<http::ServerResponse>> scraped;
  http::GetUnix(
      daemon.loop(), test.root / "r/rund/1.metrics.sock", "/metrics", 10s,
      [&scraped](Result<http::ServerResponse> got) { scraped.set_value(std::move(got)); });
  const auto page = scraped.get_future().get();
  REQUIRE(page.ok());
  CHECK(page->body.find("crisp_rund_rpc_calls_total{code=\"OK\",method=\"crisp.daemon.v1.Daemon/"
                        "Info\"} 1") != std::string::npos);
  CHECK(page->body.find("crisp_rund_pool_queued_tasks{lane=\"wait\"} 0") != std::string::npos);
  CHECK(page->body.find("crisp_rund_pool_wait_seconds_count{lane=\"fast\"} ") != std::string::npos);
  CHECK(page->body.find(fmt::format("crisp_rund_build_info{{commit=\"{}\",version=\"{}\"}} 1",
                                    Commit(), Version())) != std::string::npos);

  CHECK(Daemon::Create(test.options).code() == Code::kUnavailable);

  REQUIRE(kill(getpid(), SIGTERM) == 0);
  CHECK(run.get().ok());
  CHECK(drained);
  frame->reset();
  CHECK_FALSE(os::Exists(test.root / "r/rund/1.sock"));
  CHECK_FALSE(os::Exists(test.root / "r/rund/1.metrics.sock"));
}

TEST_CASE("a daemon waits for the last child of a killed one, and not for another instance of it") {
  TestDaemon test;
  REQUIRE(os::MakeDirs(test.root / "r/rund").ok());
  auto held = os::FileLock::TryLock(test.root / "r/rund/1.lock");
  REQUIRE(held.ok());
  SECTION("the child comes to its exec") {
    auto started =
        std::async(std::launch::async, [&test] { return Daemon::Create(test.options).status(); });
    CHECK(started.wait_for(50ms) == std::future_status::timeout);
    held->Unlock();
    CHECK(started.get().message() == "");
  }
  SECTION("it is a daemon that runs") {
    const Status refused = Daemon::Create(test.options).status();
    CHECK(refused.code() == Code::kUnavailable);
    CHECK(refused.message().find("instance 1 of rund runs already") == 0);
  }
}

TEST_CASE("SIGHUP reads the settings again, and bad ones change nothing") {
  TestDaemon test;
  auto frame = Daemon::Create(test.options);
  REQUIRE(frame.ok());
  std::promise<std::chrono::seconds> reloaded;
  (*frame)->OnReload({.check = nullptr, .apply = [&reloaded](const settings::Settings& settings) {
                        reloaded.set_value(settings.crid.peer_wait);
                        return Status::Ok();
                      }});
  auto run = std::async(std::launch::async, [&frame] { return (*frame)->Run(); });
  test.Info();
  test.root.Write("c.yaml.d/1.yaml", "crid: {peer_wait_seconds: 17}\n");
  REQUIRE(kill(getpid(), SIGHUP) == 0);
  CHECK(reloaded.get_future().get() == 17s);
  (*frame)->RequestStop();
  CHECK(run.get().ok());
}

TEST_CASE("nothing calls into the App once Run has returned, however it ended") {
  TestDaemon test;
  auto frame = Daemon::Create(test.options);
  REQUIRE(frame.ok());
  Daemon& daemon = **frame;
  daemon.AddSocket(test.root.Write("r/taken", "no socket"));
  CHECK(daemon.Run().code() == Code::kFailedPrecondition);
  CHECK_FALSE(os::Exists(test.root / "r/rund/1.metrics.sock"));
  bool called = false;
  const auto call = [&called] { called = true; };
  CHECK(daemon.pool().Submit(work::Lane::kBulk, CallContext::Background(10s), call).code() ==
        Code::kUnavailable);
  daemon.loop().Post(call);
  std::promise<Code> rendered;
  daemon.RenderMetrics(
      [&rendered](const Result<std::string>& page) { rendered.set_value(page.code()); });
  CHECK(rendered.get_future().get() == Code::kUnavailable);
  CHECK(daemon.Quiesce().ok());
  frame->reset();
  CHECK_FALSE(called);
}

TEST_CASE("the mark of records stays while there are some, also when the daemon is stopped") {
  TestDaemon test;
  const std::string mark = test.root / "r/rund/1.records";
  for (const bool some : {true, false}) {
    auto frame = Daemon::Create(test.options);
    REQUIRE(frame.ok());
    REQUIRE((*frame)->MarkRecords([some] { return some; }).ok());
    CHECK(os::Exists(mark));
    (*frame)->RequestStop();
    CHECK((*frame)->Run().ok());
    frame->reset();
    CHECK(os::Exists(mark) == some);
  }
}

TEST_CASE("main ends with 1 when it cannot run, and with 78 when no restart would help") {
  testing::TestRoot root;
  const std::string bad = root.Write("bad.yaml", "nonsense: 1\n");
  const auto make = [](Daemon&) -> Result<std::unique_ptr<App>> { return Internal("no app"); };
  std::vector<const char*> arguments = {"crisp-rund", "--config", bad.c_str()};
  CHECK(Main(3, arguments.data(), "rund", make) == 78);
  CHECK(kWrongSettings == 78);
  const std::string absent = root / "absent.yaml";
  arguments[2] = absent.c_str();
  CHECK(Main(3, arguments.data(), "rund", make) == 1);
  const std::string good =
      root.Write("good.yaml", fmt::format("run_root: {0}/r\nstate_root: {0}/s\n", root.path()));
  arguments[2] = good.c_str();
  CHECK(Main(3, arguments.data(), "rund", make) == 1);
}

TEST_CASE("main with --check-config only looks at the settings and what they name") {
  testing::TestRoot root;
  const std::string file = root.Write(
      "c.yaml",
      fmt::format("run_root: {0}/r\nstate_root: {0}/s\nrund: {{pause: /p}}\n", root.path()));
  const auto make = [](Daemon&) -> Result<std::unique_ptr<App>> { return Internal("no app"); };
  const auto check = [](const settings::Settings& settings, const Options&) {
    return settings.rund.pause == "/p" ? NotFound("rund.pause: none") : Status::Ok();
  };
  const std::vector<const char*> arguments = {"crisp-rund", "--check-config", "--config",
                                              file.c_str()};
  CHECK(Main(4, arguments.data(), "rund", make) == 0);
  CHECK(Main(4, arguments.data(), "rund", make, nullptr, check) == kWrongSettings);
  root.Write("c.yaml.d/1.yaml", "rund: {pause: /q}\n");
  CHECK(Main(4, arguments.data(), "rund", make, nullptr, check) == 0);
  root.Write("c.yaml.d/1.yaml", "rund: {pauses: /q}\n");
  CHECK(Main(4, arguments.data(), "rund", make, nullptr, check) == kWrongSettings);
  CHECK_FALSE(os::Exists(root / "r"));
}

}  // namespace crisp::daemon
