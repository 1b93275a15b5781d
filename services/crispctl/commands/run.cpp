#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <thread>

#include "libs/base/cleanup.h"
#include "libs/base/ids.h"
#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/interrupts.h"
#include "services/crispctl/log_reader.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

// Between two looks at the log and the state.
constexpr std::chrono::milliseconds kLook{50};
constexpr std::chrono::seconds kGrace{10};

struct Args {
  std::string image;
  std::string name;
  std::string handler;
  std::vector<std::string> env;
  bool net = false;
  bool detached = false;
};

runtime::v1::PodSandboxConfig PodConfig(const Args& args, const std::string& name,
                                        const std::string& uid, const std::string& logs) {
  runtime::v1::PodSandboxConfig config;
  auto* metadata = config.mutable_metadata();
  metadata->set_name(name);
  metadata->set_namespace_(std::string(kRunNamespace));
  metadata->set_uid(uid);
  config.set_log_directory(logs);
  // What crictl and log agents look for.
  auto& labels = *config.mutable_labels();
  labels["io.kubernetes.pod.name"] = name;
  labels["io.kubernetes.pod.namespace"] = metadata->namespace_();
  labels["io.kubernetes.pod.uid"] = uid;
  auto* namespaces =
      config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  namespaces->set_network(args.net ? runtime::v1::POD : runtime::v1::NODE);
  namespaces->set_pid(runtime::v1::CONTAINER);
  return config;
}

Result<runtime::v1::ContainerConfig> ContainerConfig(const Args& args,
                                                     const std::vector<std::string>& command,
                                                     const std::string& name,
                                                     const std::string& image,
                                                     const runtime::v1::PodSandboxConfig& pod) {
  runtime::v1::ContainerConfig config;
  config.mutable_metadata()->set_name(name);
  config.mutable_image()->set_image(image);
  config.mutable_image()->set_user_specified_image(args.image);
  // As `docker run` has it: what is given comes in place of the image's CMD.
  for (const std::string& word : command) config.add_args(word);
  for (const std::string& text : args.env) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      return InvalidArgument("--env takes NAME=VALUE, not '{}'", text);
    }
    auto* env = config.add_envs();
    env->set_key(text.substr(0, equals));
    env->set_value(text.substr(equals + 1));
  }
  *config.mutable_labels() = pod.labels();
  (*config.mutable_labels())["io.kubernetes.container.name"] = name;
  config.set_log_path(name + ".log");
  *config.mutable_linux()->mutable_security_context()->mutable_namespace_options() =
      pod.linux().security_context().namespace_options();
  return config;
}

Result<std::string> ImageId(Client& client, const std::string& image) {
  if (image.starts_with('/')) return image;  // a checkpoint's archive
  const auto status = CRISP_TRY(client.ImageStatus(image));
  if (status.has_image()) return status.image().id();
  return PullShown(client, image, {}, /*quiet=*/false);
}

/// False when nobody reads it any more.
bool Show(const LogLine& line) {
  std::FILE* to = line.from_stderr ? stderr : stdout;
  errno = 0;
  std::fwrite(line.text.data(), 1, line.text.size(), to);
  if (!line.partial) std::fputc('\n', to);
  std::fflush(to);
  return std::ferror(to) == 0 || errno != EPIPE;
}

/// A second signal cuts the grace short.
Status StopSoon(Client& client, const Interrupts& interrupts, const std::string& id,
                std::chrono::seconds grace) {
  client.CancelOn(interrupts.told_twice());
  Status stopped = client.StopContainer(id, grace);
  client.CancelOn({});
  return interrupts.told_twice().stop_requested() ? client.StopContainer(id, {}) : stopped;
}

/// Shows the log until the container ends, by itself or because we are told to end; its exit code.
Result<int> Watch(Client& client, Interrupts& interrupts, const std::string& id,
                  const std::string& log) {
  LogReader reader(log);
  // As SIGPIPE would have it, there is no grace for one that nobody listens to.
  std::chrono::seconds grace = kGrace;
  auto write = [&interrupts, &grace](const LogLine& line) {
    if (grace.count() == 0 || Show(line)) return;
    grace = {};
    interrupts.End();
  };
  bool stopped = false;
  while (true) {
    if (!stopped && interrupts.told().stop_requested()) {
      stopped = true;
      CRISP_TRY(StopSoon(client, interrupts, id, grace));
    }
    const auto status = client.ContainerStatus(id);
    CRISP_TRY(reader.Read(write));
    if (status.ok() && (status->status().state() == runtime::v1::CONTAINER_EXITED ||
                        status->status().state() == runtime::v1::CONTAINER_UNKNOWN)) {
      if (status->status().reason() == "OOMKilled") Complain("out of memory: it was killed");
      return status->status().exit_code();
    }
    // A daemon that restarts is waited for: the container runs on meanwhile.
    if (!status.ok() && status.code() != Code::kUnavailable) return status.status();
    std::this_thread::sleep_for(kLook);
  }
}

/// What came of a step, unless we were told to end meanwhile: then that is the cause.
template <typename T>
T UnlessTold(const Interrupts& interrupts, T done) {
  Status told = interrupts.Check();
  return told.ok() ? std::move(done) : T(std::move(told));
}

/// A first signal ends a pull at once; what makes the pod and the container is finished before, as
/// only what has an id can be taken away again, or given up at a second one.
Result<int> Run(Client& client, const Shared& shared, const Args& args) {
  Interrupts interrupts;
  RandomIds ids;
  const std::string uid = ids.Next().substr(0, 16);
  const std::string name = args.name.empty() ? "run-" + uid.substr(0, 6) : args.name;
  client.CancelOn(interrupts.told());
  const std::string image = CRISP_TRY(UnlessTold(interrupts, ImageId(client, args.image)));
  client.CancelOn(interrupts.told_twice());
  const std::string logs = RunLogRoot(client.endpoint()) + "/" + uid;
  const runtime::v1::PodSandboxConfig pod = PodConfig(args, name, uid, logs);
  runtime::v1::CreateContainerRequest create;
  *create.mutable_config() = CRISP_TRY(ContainerConfig(args, shared.command, name, image, pod));
  *create.mutable_sandbox_config() = pod;

  CRISP_TRY(os::MakeDirs(logs, 0750));
  Cleanup forget([&logs] {
    if (Status gone = os::RemoveTree(logs); !gone.ok()) Complain(gone.message());
  });
  auto made = client.RunPod(pod, args.handler);
  if (made.code() == Code::kCancelled) {
    return Cancelled("interrupted; pod {0} may come up all the same: crispctl rmp {0}", name);
  }
  const std::string pod_id = CRISP_TRY(std::move(made));
  Cleanup remove([&client, &pod_id] {
    client.CancelOn({});
    if (Status down = client.StopPod(pod_id); !down.ok()) Complain(down.message());
    if (Status gone = client.RemovePod(pod_id); !gone.ok()) Complain(gone.message());
  });
  CRISP_TRY(interrupts.Check());
  create.set_pod_sandbox_id(pod_id);
  const std::string id = CRISP_TRY(UnlessTold(interrupts, client.CreateContainer(create)));
  CRISP_TRY(UnlessTold(interrupts, client.StartContainer(id)));
  client.CancelOn({});
  if (!args.detached) return Watch(client, interrupts, id, logs + "/" + name + ".log");
  remove.Dismiss();
  forget.Dismiss();
  if (shared.json()) {
    runtime::v1::CreateContainerResponse answer;
    answer.set_container_id(id);
    Print(ToJson(answer));
  } else {
    Print(id);
  }
  return kDone;
}

}  // namespace

void AddRunCommand(CLI::App& app, Shared& shared) {
  auto args = std::make_shared<Args>();
  CLI::App* run = app.add_subcommand(
      "run", "Run a container in a pod of its own, show what it writes, remove it when it ends");
  run->add_option("IMAGE", args->image,
                  "Pulled when it is not here; or the absolute path of a checkpoint's archive")
      ->required();
  AddCommandOperand(*run, "In place of the image's own; options behind its first word are its own");
  run->add_option("--name", args->name, "Of the pod and the container");
  run->add_option("-e,--env", args->env, "NAME=VALUE; may be given again")
      ->type_size(1)
      ->allow_extra_args(false);
  run->add_option("--runtime", args->handler, "The runtime handler; else the default one");
  run->add_flag("--net", args->net, "A network of its own (CNI); else the host's");
  run->add_flag("-d,--detach", args->detached, "Leave it running and print its id");
  run->footer(
      "Exit code: that of the container; 125 when it could not be run. Interrupted (or when "
      "nobody\n"
      "reads what it writes), it stops and removes the container; interrupted twice, at once.\n"
      "Example: crispctl run --net docker.io/library/busybox -- ip addr");
  run->callback([&shared, args] {
    WithClient(
        shared, [&](Client& client) { return Run(client, shared, *args); }, kNotRun);
  });
}

}  // namespace crisp::ctl
