// Not a test but figures ("[.figures]"): what netd adds to the plugins by themselves, and what of
// their time is the start of their programs.
#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdio>
#include <thread>

#include "libs/os/namespaces.h"
#include "services/netd/core/netns_pin.h"
#include "services/netd/tests/real_host.h"

namespace crisp::netd {
namespace {

using Milliseconds = std::chrono::duration<double, std::milli>;

constexpr int kPods = 50;
constexpr int kParallel = 10;

double Timed(const std::function<void()>& fn) {
  const auto start = std::chrono::steady_clock::now();
  fn();
  return Milliseconds(std::chrono::steady_clock::now() - start).count();
}

/// The number first: netd's lock of a pod goes by the first digits, which are random in real ids.
PodId Number(int number) { return PodId(fmt::format("{:06x}{:058x}", 0xf00000 + number, 0)); }

void Say(const std::string& what, std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  std::printf("%-44s min %7.2f  median %7.2f ms\n", what.c_str(), samples.front(),
              samples[samples.size() / 2]);
}

/// `one` for each of kPods, kParallel at a time; the whole takes so many ms.
double Many(const std::function<void(int)>& one) {
  return Timed([&one] {
    std::atomic<int> next = 0;
    std::vector<std::jthread> threads;
    for (int i = 0; i < kParallel; ++i) {
      threads.emplace_back([&next, &one] {
        for (int number = next++; number < kPods; number = next++) one(number);
      });
    }
  });
}

TEST_CASE("Figures of netd against the plugins alone", "[.figures]") {
  RealHost host(R"([{"type": "bridge", "bridge": "crt0", "isGateway": true, "hairpinMode": true,
    "ipam": {"type": "host-local", "dataDir": "$DIR",
             "ranges": [[{"subnet": "10.231.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}])");
  host.Inside([&host] {
    TestNet& net = host.net;
    const auto list = net.readiness->Wait(net.Call(), std::chrono::seconds(0));
    REQUIRE(list.ok());
    const auto args_of = [&net](const PodId& pod) {
      return PluginArgs{.container_id = pod.str(),
                        .netns = net.config.layout.NetnsPath(pod),
                        .cni_args = "IgnoreUnknown=1"};
    };
    const auto plugins_add = [&](int number) {
      const PodId pod = Number(number);
      auto pin = PinNetns(net.config.layout.NetnsPath(pod), {}, {});
      if (pin.ok()) pin->Commit();
      return net.plugins->Add(net.Call(), **list, args_of(pod)).ok();
    };
    const auto plugins_del = [&](int number) {
      const PodId pod = Number(number);
      static_cast<void>(net.plugins->Del(net.Call(), **list, args_of(pod), {}).ok());
      static_cast<void>(os::UnpinNamespace(net.config.layout.NetnsPath(pod)).ok());
    };
    std::vector<double> start;
    std::vector<double> alone;
    std::vector<double> attach;
    std::vector<double> detach;
    plugins_add(0);  // the bridge comes with the first
    plugins_del(0);
    for (int i = 0; i < kPods; ++i) {
      start.push_back(Timed([&] {
        const PluginPrograms fresh(net.config.bin_dirs);  // asks anew
        static_cast<void>(fresh.Versions(net.Call(), "bridge").ok());
      }));
      alone.push_back(Timed([&] { CHECK(plugins_add(i)); }));
      plugins_del(i);
      const auto begin = std::chrono::steady_clock::now();
      const auto answer = [&attach, begin](const PodNetwork&) {
        attach.push_back(Milliseconds(std::chrono::steady_clock::now() - begin).count());
      };
      CHECK(net.networks->Attach(net.Call(), Number(i), PodConfig(), {}, answer).ok());
      detach.push_back(Timed([&] { host.Detach(Number(i)); }));
    }
    Say("a plugin's start (VERSION)", start);
    Say("ADD: namespace, bridge, host-local, portmap", alone);
    Say("Attach, to its answer", attach);
    Say("Detach", detach);
    const double alone_many = Many([&](int number) { plugins_add(number); });
    for (int i = 0; i < kPods; ++i) plugins_del(i);
    std::atomic<int> good = 0;
    const double attach_many = Many([&](int number) {
      good += net.networks->Attach(net.Call(), Number(number), PodConfig()).ok() ? 1 : 0;
    });
    CHECK(good == kPods);
    for (int i = 0; i < kPods; ++i) host.Detach(Number(i));
    std::printf("%d pods, %d at a time: plugins alone %.0f ms, Attach %.0f ms\n", kPods, kParallel,
                alone_many, attach_many);
  });
}

}  // namespace
}  // namespace crisp::netd
