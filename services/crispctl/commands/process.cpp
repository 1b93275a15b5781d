#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <thread>
#include <utility>

#include "libs/base/try.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/log_reader.h"
#include "services/crispctl/log_tail.h"
#include "services/crispctl/log_time.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

// Between two looks at a log that is followed.
constexpr std::chrono::milliseconds kLook{100};

struct LogArgs {
  std::string id;
  bool follow = false;
  bool previous = false;
  bool times = false;
  std::int64_t tail = -1;
  std::string since;
};

/// Writes a log's lines as the container wrote them.
class Printer {
 public:
  explicit Printer(bool times) : times_(times) {}

  void operator()(const LogLine& line) {
    std::FILE* to = line.from_stderr ? stderr : stdout;
    // Once a line, whatever pieces it comes in.
    const bool goes_on = std::exchange(open_[line.from_stderr ? 1 : 0], line.partial);
    if (times_ && !goes_on) fmt::print(to, "{} ", line.time);
    std::fwrite(line.text.data(), 1, line.text.size(), to);
    if (!line.partial) std::fputc('\n', to);
    std::fflush(to);
  }

 private:
  const bool times_;
  std::array<bool, 2> open_ = {};  // stdout, stderr
};

/// The attempt before this one of the same container.
Result<std::string> PreviousOf(Client& client, const runtime::v1::Container& container) {
  const auto list = CRISP_TRY(client.ListContainers());
  const runtime::v1::Container* found = nullptr;
  for (const auto& other : list.containers()) {
    const bool earlier = other.pod_sandbox_id() == container.pod_sandbox_id() &&
                         other.metadata().name() == container.metadata().name() &&
                         other.metadata().attempt() < container.metadata().attempt();
    if (earlier && (found == nullptr || other.metadata().attempt() > found->metadata().attempt())) {
      found = &other;
    }
  }
  if (found != nullptr) return found->id();
  return NotFound("no earlier attempt of container {} is there", container.metadata().name());
}

Result<int> Logs(Client& client, const LogArgs& args) {
  std::optional<WallTime> since;
  if (!args.since.empty()) {
    since = CRISP_TRY(ParseSince(args.since, Clock::System().Wall()).While("--since"));
  }
  const auto container = CRISP_TRY(FindContainer(client, args.id));
  const std::string id = args.previous ? CRISP_TRY(PreviousOf(client, container)) : container.id();
  const auto status = CRISP_TRY(client.ContainerStatus(id));
  if (status.status().log_path().empty()) {
    return FailedPrecondition("container {} has no log: it was made without a log path", args.id);
  }
  LogReader reader(status.status().log_path());
  Printer print(args.times);
  // Of what is no time nobody knows that it is too old.
  const auto is_new = [&since](const LogLine& line) {
    return !since || ParseLogTime(line.time).value_or(*since) >= *since;
  };
  if (args.tail >= 0) {
    LogTail tail(static_cast<std::size_t>(args.tail));
    CRISP_TRY(reader.Read([&](const LogLine& line) {
      if (is_new(line)) tail.Add(line);
    }));
    tail.Give([&print](const LogLine& line) { print(line); });
  }
  const auto write = [&](const LogLine& line) {
    if (is_new(line)) print(line);
  };
  CRISP_TRY(reader.Read(write));
  while (args.follow) {
    const auto now = client.ContainerStatus(id);
    const bool over = !now.ok() || (now->status().state() != runtime::v1::CONTAINER_RUNNING &&
                                    now->status().state() != runtime::v1::CONTAINER_CREATED);
    CRISP_TRY(reader.Read(write));
    if (over && now.code() != Code::kUnavailable) break;
    std::this_thread::sleep_for(kLook);
  }
  return kDone;
}

struct CheckpointArgs {
  std::string id;
  std::string file;
  std::int64_t timeout = 0;
};

Status Checkpoint(Client& client, const CheckpointArgs& args) {
  const auto container = CRISP_TRY(FindContainer(client, args.id));
  // The node's daemons have a working directory of their own.
  std::error_code error;
  const std::filesystem::path file = std::filesystem::absolute(args.file, error);
  if (error) return Status::Errno(error.value(), "{}", args.file);
  return client.CheckpointContainer(container.id(), file.lexically_normal(),
                                    std::chrono::seconds(args.timeout));
}

}  // namespace

void AddProcessCommands(CLI::App& app, Shared& shared) {
  auto log_args = std::make_shared<LogArgs>();
  CLI::App* logs = app.add_subcommand("logs", "What a container wrote");
  logs->add_option("CONTAINER", log_args->id, "Its id, or its name")->required();
  logs->add_flag("-f,--follow", log_args->follow, "And what it writes, until it ends");
  logs->add_flag("-t,--timestamps", log_args->times, "With times");
  logs->add_option("--tail", log_args->tail, "Only the last N lines of what is there");
  logs->add_option("--since", log_args->since,
                   "Only what is not older: 90s, 10m, 1h30m, 2d, or 2026-01-31T12:00:00Z");
  logs->add_flag("-p,--previous", log_args->previous,
                 "Of the attempt before, as far as it is there");
  logs->callback([&shared, log_args] {
    WithClient(shared, [&](Client& client) { return Logs(client, *log_args); });
  });

  auto checkpoint_args = std::make_shared<CheckpointArgs>();
  CLI::App* checkpoint = app.add_subcommand(
      "checkpoint", "Write a running container's processes and files to an archive; it goes on");
  checkpoint->add_option("CONTAINER", checkpoint_args->id, "Its id, or its name")->required();
  checkpoint
      ->add_option("FILE", checkpoint_args->file,
                   "The archive, a new file on the node; a container whose image is its absolute "
                   "path is restored from it")
      ->required();
  checkpoint
      ->add_option("-t,--timeout", checkpoint_args->timeout,
                   "Seconds that it may take; 0: what the node allows")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{86'400}))
      ->capture_default_str();
  checkpoint->callback([&shared, checkpoint_args] {
    WithClient(shared, [&](Client& client) -> Result<int> {
      return ForEach(shared, {checkpoint_args->id},
                     [&](const std::string&) { return Checkpoint(client, *checkpoint_args); });
    });
  });
}

}  // namespace crisp::ctl
