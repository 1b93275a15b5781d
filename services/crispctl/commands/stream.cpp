#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <thread>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/os/unique_fd.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/output.h"
#include "services/crispctl/remote.h"

namespace crisp::ctl {
namespace {

struct ExecArgs {
  std::string id;
  bool interactive = false;
  bool tty = false;
  std::int64_t timeout = 0;
};

/// With a time limit: the runtime kills the command, and its output comes at the end.
Result<int> ExecForSeconds(Client& client, const std::string& id,
                           const std::vector<std::string>& command, std::chrono::seconds timeout) {
  const auto answer = CRISP_TRY(client.ExecSync(id, command, timeout));
  std::fwrite(answer.stdout().data(), 1, answer.stdout().size(), stdout);
  std::fflush(stdout);
  std::fwrite(answer.stderr().data(), 1, answer.stderr().size(), stderr);
  return answer.exit_code();
}

Result<int> Exec(Client& client, const Shared& shared, const ExecArgs& args) {
  const auto container = CRISP_TRY(FindContainer(client, args.id));
  if (args.timeout > 0) {
    return ExecForSeconds(client, container.id(), shared.command,
                          std::chrono::seconds(args.timeout));
  }
  runtime::v1::ExecRequest request;
  request.set_container_id(container.id());
  for (const std::string& word : shared.command) request.add_cmd(word);
  request.set_stdin(args.interactive);
  request.set_tty(args.tty);
  request.set_stdout(true);
  request.set_stderr(!args.tty);
  return RunRemote(CRISP_TRY(client.Exec(request)),
                   {.stdin_open = args.interactive, .tty = args.tty, .detach_keys = false});
}

Result<int> Attach(Client& client, const std::string& id, bool interactive) {
  const auto container = CRISP_TRY(FindContainer(client, id));
  // As the container was made: a terminal, or not.
  const auto status = CRISP_TRY(client.ContainerStatus(container.id(), true));
  const auto found = status.info().find("info");
  const auto info = json::Parse(found == status.info().end() ? "{}" : found->second);
  const bool tty =
      info.ok() && json::OptBool(*info, "runtimeSpec.process.terminal").value_or(false);
  runtime::v1::AttachRequest request;
  request.set_container_id(container.id());
  request.set_stdin(interactive);
  request.set_tty(tty);
  request.set_stdout(true);
  request.set_stderr(!tty);
  if (tty && interactive) Complain("Ctrl-P Ctrl-Q leaves the container as it is");
  return RunRemote(CRISP_TRY(client.Attach(request)),
                   {.stdin_open = interactive, .tty = tty, .detach_keys = true});
}

struct Listening {
  os::UniqueFd socket;
  PortPair ports;
};

Result<Listening> ListenFor(PortPair ports) {
  os::UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(ports.local);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int yes = 1;
  setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(socket.get(), 64) != 0) {
    return Status::Errno(errno, "listen on 127.0.0.1:{}", ports.local);
  }
  socklen_t size = sizeof address;
  if (getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    ports.local = ntohs(address.sin_port);
  }
  return Listening{std::move(socket), ports};
}

/// Until it is interrupted.
Result<int> Forward(Client& client, const std::string& id, const std::vector<std::string>& texts) {
  const auto pod = CRISP_TRY(FindPod(client, id));
  std::vector<Listening> all;
  for (const std::string& text : texts) {
    const PortPair ports = CRISP_TRY(ParsePorts(text));
    all.push_back(CRISP_TRY(ListenFor(ports)));
  }
  std::vector<pollfd> watched;
  for (const Listening& one : all) {
    watched.push_back({one.socket.get(), POLLIN, 0});
    fmt::print("127.0.0.1:{} -> {}\n", one.ports.local, one.ports.remote);
  }
  std::fflush(stdout);
  while (poll(watched.data(), watched.size(), -1) >= 0 || errno == EINTR) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      if ((watched[i].revents & POLLIN) == 0) continue;
      const int accepted = accept4(all[i].socket.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (accepted < 0) continue;
      runtime::v1::PortForwardRequest request;
      request.set_pod_sandbox_id(pod.id());
      request.add_port(all[i].ports.remote);
      const auto url = client.PortForward(request);
      if (!url.ok()) {
        Complain(url.status().message());
        close(accepted);
        continue;
      }
      std::thread([accepted, url = *url] {
        const os::UniqueFd socket(accepted);
        if (Status done = ForwardConnection(url, socket.get()); !done.ok()) {
          Complain(done.message());
        }
      }).detach();
    }
  }
  return Status::Errno(errno, "poll");
}

}  // namespace

void AddStreamCommands(CLI::App& app, Shared& shared) {
  auto exec_args = std::make_shared<ExecArgs>();
  CLI::App* exec = app.add_subcommand("exec", "Run a command in a container, show what it writes");
  exec->add_option("CONTAINER", exec_args->id, "Its id, or its name")->required();
  AddCommandOperand(*exec, "Options behind its first word are its own")->required();
  exec->add_flag("-i,--interactive", exec_args->interactive, "Our stdin is its stdin");
  auto* tty = exec->add_flag("-t,--tty", exec_args->tty, "It has a terminal");
  exec->add_option("--timeout", exec_args->timeout, "Seconds after which it is killed; 0: never")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{86'400}))
      ->excludes(tty);
  exec->footer("Exit code: that of the command; 125 when it could not be run.");
  exec->callback([&shared, exec_args] {
    WithClient(
        shared, [&](Client& client) { return Exec(client, shared, *exec_args); }, kNotRun);
  });

  struct AttachArgs {
    std::string id;
    bool interactive = false;
  };
  auto attach_args = std::make_shared<AttachArgs>();
  CLI::App* attach = app.add_subcommand("attach", "See what a container writes, and write to it");
  attach->add_option("CONTAINER", attach_args->id, "Its id, or its name")->required();
  attach->add_flag("-i,--interactive", attach_args->interactive, "Our stdin is its stdin");
  attach->callback([&shared, attach_args] {
    WithClient(shared, [&](Client& client) {
      return Attach(client, attach_args->id, attach_args->interactive);
    });
  });

  struct ForwardArgs {
    std::string id;
    std::vector<std::string> ports;
  };
  auto forward_args = std::make_shared<ForwardArgs>();
  CLI::App* forward =
      app.add_subcommand("port-forward", "Let ports of this node lead to ports of a pod");
  forward->add_option("POD", forward_args->id, "Its id, or its name")->required();
  forward->add_option("PORT", forward_args->ports, "LOCAL:REMOTE, REMOTE, or :REMOTE for any local")
      ->required();
  forward->callback([&shared, forward_args] {
    WithClient(shared, [&](Client& client) {
      return Forward(client, forward_args->id, forward_args->ports);
    });
  });
}

}  // namespace crisp::ctl
