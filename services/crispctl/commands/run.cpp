#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <thread>

#include "libs/base/cleanup.h"
#include "libs/base/ids.h"
#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/log_reader.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

// Between two looks at the log and the state.
constexpr std::chrono::milliseconds kLook{50};
constexpr std::chrono::seconds kGrace{10};

struct Args {
  std::string image;
  std::vector<std::string> command;
  std::string name;
  std::string handler;
  std::vector<std::string> env;
  bool net = false;
  bool detached = false;
};

// Set by SIGINT and SIGTERM: the container is stopped and removed, then we end.
std::atomic<int> told_to_end{0};

void OnSignal(int signal) { told_to_end = signal; }

void CatchSignals() {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

runtime::v1::PodSandboxConfig PodConfig(const Args& args, const std::string& name,
                                        const std::string& uid, const std::string& logs) {
  runtime::v1::PodSandboxConfig config;
  auto* metadata = config.mutable_metadata();
  metadata->set_name(name);
  metadata->set_namespace_("crispctl");
  metadata->set_uid(uid);
  config.set_log_directory(logs);
  // What crictl and log agents look for.
  auto& labels = *config.mutable_labels();
  labels["io.kubernetes.pod.name"] = name;
  labels["io.kubernetes.pod.namespace"] = "crispctl";
  labels["io.kubernetes.pod.uid"] = uid;
  auto* namespaces =
      config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  namespaces->set_network(args.net ? runtime::v1::POD : runtime::v1::NODE);
  namespaces->set_pid(runtime::v1::CONTAINER);
  return config;
}

Result<runtime::v1::ContainerConfig> ContainerConfig(const Args& args, const std::string& name,
                                                     const std::string& image,
                                                     const runtime::v1::PodSandboxConfig& pod) {
  runtime::v1::ContainerConfig config;
  config.mutable_metadata()->set_name(name);
  config.mutable_image()->set_image(image);
  config.mutable_image()->set_user_specified_image(args.image);
  // As `docker run` has it: what is given comes in place of the image's CMD.
  for (const std::string& word : args.command) config.add_args(word);
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
  const auto status = CRISP_TRY(client.ImageStatus(image));
  if (status.has_image()) return status.image().id();
  return PullShown(client, image, {}, /*quiet=*/false);
}

/// Shows the log until the container ends; its exit code.
Result<int> Watch(Client& client, const std::string& id, const std::string& log) {
  LogReader reader(log);
  auto write = [](const LogLine& line) {
    std::FILE* to = line.from_stderr ? stderr : stdout;
    std::fwrite(line.text.data(), 1, line.text.size(), to);
    if (!line.partial) std::fputc('\n', to);
    std::fflush(to);
  };
  bool stopped = false;
  while (true) {
    if (told_to_end != 0 && !stopped) {
      stopped = true;
      CRISP_TRY(client.StopContainer(id, kGrace));
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

Result<int> Run(Client& client, const Shared& shared, const Args& args) {
  CatchSignals();
  RandomIds ids;
  const std::string uid = ids.Next().substr(0, 16);
  const std::string name = args.name.empty() ? "run-" + uid.substr(0, 6) : args.name;
  const std::string image = CRISP_TRY(ImageId(client, args.image));
  const std::string logs = RunLogRoot(client.endpoint()) + "/" + uid;
  const runtime::v1::PodSandboxConfig pod = PodConfig(args, name, uid, logs);
  runtime::v1::CreateContainerRequest create;
  *create.mutable_config() = CRISP_TRY(ContainerConfig(args, name, image, pod));
  *create.mutable_sandbox_config() = pod;

  CRISP_TRY(os::MakeDirs(logs, 0750));
  Cleanup forget([&logs] {
    if (Status gone = os::RemoveTree(logs); !gone.ok()) Complain(gone.message());
  });
  const std::string pod_id = CRISP_TRY(client.RunPod(pod, args.handler));
  Cleanup remove([&client, &pod_id] {
    if (Status down = client.StopPod(pod_id); !down.ok()) Complain(down.message());
    if (Status gone = client.RemovePod(pod_id); !gone.ok()) Complain(gone.message());
  });
  create.set_pod_sandbox_id(pod_id);
  const std::string id = CRISP_TRY(client.CreateContainer(create));
  CRISP_TRY(client.StartContainer(id));
  if (args.detached) {
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
  return Watch(client, id, logs + "/" + name + ".log");
}

}  // namespace

void AddRunCommand(CLI::App& app, Shared& shared) {
  auto args = std::make_shared<Args>();
  CLI::App* run = app.add_subcommand(
      "run", "Run a container in a pod of its own, show what it writes, remove it when it ends");
  run->add_option("IMAGE", args->image, "Pulled when it is not here")->required();
  run->add_option("COMMAND", args->command, "After '--'; else the image's own");
  run->add_option("--name", args->name, "Of the pod and the container");
  run->add_option("-e,--env", args->env, "NAME=VALUE; may be given again")
      ->type_size(1)
      ->allow_extra_args(false);
  run->add_option("--runtime", args->handler, "The runtime handler; else the default one");
  run->add_flag("--net", args->net, "A network of its own (CNI); else the host's");
  run->add_flag("-d,--detach", args->detached, "Leave it running and print its id");
  run->footer(
      "Exit code: that of the container; 125 when it could not be run.\n"
      "Example: crispctl run --net docker.io/library/busybox -- ip addr");
  run->callback([&shared, args] {
    WithClient(
        shared, [&](Client& client) { return Run(client, shared, *args); }, kNotRun);
  });
}

}  // namespace crisp::ctl
