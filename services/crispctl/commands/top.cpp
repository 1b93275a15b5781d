#include "services/crispctl/top.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <thread>

#include "libs/base/try.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

struct TopArgs {
  int count = 0;  // 0: until interrupted on a terminal, else once
  int seconds = 2;
  bool pods_only = false;
};

/// Home, then away with what is below.
constexpr std::string_view kClear = "\x1b[H\x1b[2J";

Result<int> ShowTop(Client& client, const TopArgs& args) {
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  const int count = args.count == 0 && !terminal ? 1 : args.count;
  Top top(args.pods_only);
  for (int round = 1;; ++round) {
    const auto stats = CRISP_TRY(client.ListContainerStats());
    const auto pods = CRISP_TRY(client.ListPods());
    const auto containers = CRISP_TRY(client.ListContainers());
    const std::string text = top.Look(stats, pods, containers);
    if (terminal && count != 1) {
      Print(fmt::format("{}{}", kClear, text));
    } else {
      Print(round == 1 ? text : "\n" + text);
    }
    std::fflush(stdout);
    if (round == count) return kDone;
    std::this_thread::sleep_for(std::chrono::seconds(args.seconds));
  }
}

}  // namespace

void AddTopCommand(CLI::App& app, Shared& shared) {
  const auto args = std::make_shared<TopArgs>();
  CLI::App* top =
      app.add_subcommand("top", "What uses CPU and memory, pod by pod, again and again");
  top->add_option("-n,--count", args->count,
                  "Look so often; without it until interrupted, and once where no terminal is")
      ->check(CLI::Range(1, 1'000'000));
  top->add_option("-d,--delay", args->seconds, "Seconds from one look to the next")
      ->check(CLI::Range(1, 3600));
  top->add_flag("-p,--pods", args->pods_only, "Pods without their containers");
  top->callback([&shared, args] {
    WithClient(shared, [&args](Client& client) { return ShowTop(client, *args); });
  });
}

}  // namespace crisp::ctl
