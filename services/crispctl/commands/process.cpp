#include <CLI/CLI.hpp>
#include <cstdio>
#include <deque>
#include <thread>

#include "libs/base/try.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/log_reader.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

// Between two looks at a log that is followed.
constexpr std::chrono::milliseconds kLook{100};

struct LogArgs {
  std::string id;
  bool follow = false;
  bool times = false;
  std::int64_t tail = -1;
};

void Write(const LogLine& line, bool times) {
  std::FILE* to = line.from_stderr ? stderr : stdout;
  if (times) fmt::print(to, "{} ", line.time);
  std::fwrite(line.text.data(), 1, line.text.size(), to);
  if (!line.partial) std::fputc('\n', to);
  std::fflush(to);
}

Result<int> Logs(Client& client, const LogArgs& args) {
  const auto container = CRISP_TRY(FindContainer(client, args.id));
  auto status = CRISP_TRY(client.ContainerStatus(container.id()));
  if (status.status().log_path().empty()) {
    return FailedPrecondition("container {} has no log: it was made without a log path", args.id);
  }
  LogReader reader(status.status().log_path());
  if (args.tail >= 0) {
    // The last lines of what is there, as texts of their own: the reader's buffer moves on.
    struct Kept {
      std::string time;
      std::string text;
      bool from_stderr;
      bool partial;
    };
    std::deque<Kept> kept;
    CRISP_TRY(reader.Read([&](const LogLine& line) {
      kept.push_back(
          {std::string(line.time), std::string(line.text), line.from_stderr, line.partial});
      if (kept.size() > static_cast<std::size_t>(args.tail)) kept.pop_front();
    }));
    for (const Kept& line : kept) {
      Write({line.time, line.from_stderr, line.partial, line.text}, args.times);
    }
  }
  auto write = [&args](const LogLine& line) { Write(line, args.times); };
  CRISP_TRY(reader.Read(write));
  while (args.follow) {
    const auto now = client.ContainerStatus(container.id());
    const bool over = !now.ok() || (now->status().state() != runtime::v1::CONTAINER_RUNNING &&
                                    now->status().state() != runtime::v1::CONTAINER_CREATED);
    CRISP_TRY(reader.Read(write));
    if (over && now.code() != Code::kUnavailable) break;
    std::this_thread::sleep_for(kLook);
  }
  return kDone;
}

}  // namespace

void AddProcessCommands(CLI::App& app, Shared& shared) {
  auto log_args = std::make_shared<LogArgs>();
  CLI::App* logs = app.add_subcommand("logs", "What a container wrote");
  logs->add_option("CONTAINER", log_args->id, "Its id, or its name")->required();
  logs->add_flag("-f,--follow", log_args->follow, "And what it writes, until it ends");
  logs->add_flag("-t,--timestamps", log_args->times, "With times");
  logs->add_option("--tail", log_args->tail, "Only the last N lines of what is there");
  logs->callback([&shared, log_args] {
    WithClient(shared, [&](Client& client) { return Logs(client, *log_args); });
  });
}

}  // namespace crisp::ctl
