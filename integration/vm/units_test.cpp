// What the machine's systemd makes of our units: the CRI socket that it holds, and a reload.
#include <atomic>
#include <thread>

#include "integration/vm/vm_node.h"

namespace crisp::harness {
namespace {

/// A kubelet that asks all the time, on one connection, and what it had to complain about.
class Asker {
 public:
  Asker() : thread_([this](const std::stop_token& end) { Ask(end); }) {}

  void Await(int more) const {
    const int until = answers_ + more;
    while (answers_ < until) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  std::vector<std::string> End() {
    thread_.request_stop();
    thread_.join();
    return complaints_;
  }

 private:
  void Ask(const std::stop_token& end) {
    const auto channel =
        grpc::CreateChannel("unix:/run/crisp/crisp.sock", grpc::InsecureChannelCredentials());
    const auto stub = cri::RuntimeService::NewStub(channel);
    while (!end.stop_requested()) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(120));
      cri::VersionResponse response;
      const grpc::Status status = stub->Version(&context, cri::VersionRequest(), &response);
      if (!status.ok()) complaints_.push_back(status.error_message());
      ++answers_;
    }
  }

  std::atomic<int> answers_{0};
  std::vector<std::string> complaints_;
  std::jthread thread_;
};

TEST_CASE("A restart of the front under systemd refuses nobody", "[.units]") {
  Vm vm;
  CHECK(Sh("systemctl is-active crisp-crid.socket") == "active");
  CHECK(Sh("stat -c '%a %U %G' /run/crisp/crisp.sock") == "660 root root");
  Asker one;
  Asker two;
  for (int restart = 0; restart < 5; ++restart) {
    one.Await(10);
    two.Await(10);
    Sh("systemctl restart crisp-crid");
  }
  one.Await(10);
  two.Await(10);
  CHECK(one.End() == std::vector<std::string>());
  CHECK(two.End() == std::vector<std::string>());
}

TEST_CASE("The next call starts a front that was stopped, and nothing does when its socket is too",
          "[.units]") {
  Vm vm;
  Sh("systemctl stop crisp-crid 2>&1");
  // A client may have to find first that its connection has gone.
  CHECK(Eventually([&] { return vm.cri.Version().ok(); }, std::chrono::seconds(60)));
  CHECK(Sh("systemctl is-active crisp-crid") == "active");
  Sh("systemctl stop crisp-crid.socket crisp-crid");
  CHECK(Sh("[ ! -e /run/crisp/crisp.sock ]").empty());
  CHECK_FALSE(vm.cri.Version(std::chrono::seconds(2)).ok());
  Sh("systemctl start crisp-crid");
  CHECK(Sh("systemctl is-active crisp-crid.socket") == "active");
  vm.WaitReady();
}

TEST_CASE("A reload of the target takes new settings everywhere, and fails for wrong ones",
          "[.units]") {
  Vm vm;
  const std::string file = "/etc/crisp/crisp.yaml.d/50-test.yaml";
  Sh("mkdir -p /etc/crisp/crisp.yaml.d; echo 'log: {level: info}' >" + file);
  const std::string said = Sh("systemctl reload crisp.target 2>&1");
  INFO(said << Sh("journalctl -b --no-pager -o cat -u crisp-crid | tail -n 8"));
  // crispctl's table in the unit's journal, a line for each daemon.
  const auto reloads = [] {
    return Sh("journalctl -b --no-pager -o cat -u crisp-crid | grep -c '/1  *log.level' || true");
  };
  CHECK(Eventually([&] { return std::stoi(reloads()) >= 4; }, std::chrono::seconds(60)));
  Sh("echo 'log: {level: loud}' >" + file);
  CHECK(Sh("! systemctl reload crisp-crid 2>&1").find("failed") != std::string::npos);
  CHECK(Sh("! crispctl reload 2>&1").find(file + ":1: log.level") != std::string::npos);
  Sh("rm " + file + "; crispctl reload");
}

TEST_CASE("Daemons whose settings are wrong are not started over and over", "[.units]") {
  Vm vm;
  const std::string file = "/etc/crisp/crisp.yaml.d/60-wrong.yaml";
  Sh("mkdir -p /etc/crisp/crisp.yaml.d; echo 'log: {level: loud}' >" + file);
  Sh("systemctl restart crisp-netd@1 2>&1 || true");
  CHECK(Eventually([] { return Sh("systemctl is-failed crisp-netd@1 || true") == "failed"; },
                   std::chrono::seconds(60)));
  CHECK(Sh("systemctl show -P ExecMainStatus crisp-netd@1") == "78");
  CHECK(Sh("systemctl show -P NRestarts crisp-netd@1") == "0");
  Sh("systemctl restart crisp-crid 2>&1 || true");
  // Callers start the front some times more; then they are refused.
  CHECK(Eventually(
      [&] {
        static_cast<void>(vm.cri.Version(std::chrono::seconds(2)));
        return Sh("systemctl is-failed crisp-crid.socket || true") == "failed";
      },
      std::chrono::seconds(180)));
  Sh("rm " + file + "; systemctl restart crisp.target");
  vm.WaitReady();
}

TEST_CASE("Images elsewhere: the units are told by crispctl config units", "[.units]") {
  Vm vm;
  const std::string file = "/etc/crisp/crisp.yaml.d/70-images.yaml";
  const std::string take =
      "crispctl config units --write /etc/systemd/system && systemctl daemon-reload && "
      "systemctl restart crisp-imaged@1";
  Sh("mkdir -p /srv/crisp-images; echo 'imaged: {image_root: /srv/crisp-images}' >" + file);
  CHECK(Sh("crispctl config check").find("crisp-imaged@.service has to be told") !=
        std::string::npos);
  Sh(take);
  vm.WaitReady();
  Sh("crispctl image import --name localhost/elsewhere:1 /var/crisp-vm/busybox");
  CHECK(Sh("find /srv/crisp-images -name busybox | grep -c .") != "0");
  Sh("rm " + file + " && " + take);
  vm.WaitReady();
  CHECK_FALSE(Sh("crispctl images").find("elsewhere") != std::string::npos);
}

}  // namespace
}  // namespace crisp::harness
