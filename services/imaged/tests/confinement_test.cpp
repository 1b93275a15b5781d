// imaged under its own plan: what it is made for works, what it promises never to do does not.
#include "services/imaged/confinement.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "libs/archive/tests/tar_writer.h"
#include "libs/http/client.h"
#include "libs/os/files.h"
#include "libs/process/command.h"
#include "libs/testing/test_root.h"
#include "services/imaged/core/unpack.h"
#include "services/imaged/store/catalogue.h"
#include "services/imaged/store/layer_store.h"
#include "services/imaged/trust/gpg.h"

namespace crisp::imaged {
namespace {

using archive::testing::TarWriter;

settings::Settings SettingsIn(const crisp::testing::TestRoot& root) {
  settings::Settings settings;
  settings.state_root = root / "state";
  settings.run_root = root / "run";
  return settings.Resolved();
}

/// Confines a child as imaged is; "" when `body` in it finds nothing wrong.
using Body = std::function<std::string(const os::Confined&)>;
std::string InImaged(const settings::Settings& settings, const Body& body) {
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  REQUIRE(os::MakeDirs(settings.run_root + "/imaged").ok());
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    daemon::Options options;
    options.service = "imaged";
    const auto plan = PlanConfinement(settings, options);
    std::string text = plan.ok() && *plan ? "" : "no plan";
    if (text.empty()) {
      const auto confined = os::Confine(**plan);
      text = confined.ok() ? body(*confined) : confined.status().ToString();
    }
    static_cast<void>(!::write(ends[1], text.data(), text.size()));
    ::_exit(0);
  }
  ::close(ends[1]);
  const os::UniqueFd out(ends[0]);
  std::string text = os::ReadAll(out.get(), "the child's words").value();
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  if (!WIFEXITED(status)) text += " (the child died)";
  return text;
}

TEST_CASE("A confined imaged keeps its store, unpacks, runs helpers and resolves names") {
  const crisp::testing::TestRoot root;
  const settings::Settings settings = SettingsIn(root);
  CHECK(InImaged(settings, [&](const os::Confined&) -> std::string {
          const Layout layout(settings.state_root);
          const auto store = LayerStore::Open(layout);
          if (!store.ok()) return store.status().ToString();
          const auto catalogue = Catalogue::Open(layout.Catalogue(), "boot");
          if (!catalogue.ok()) return catalogue.status().ToString();
          const digest::Digest chain = digest::Sha256Digest("chain");
          const auto staged = store->Stage(chain);
          if (!staged.ok()) return staged.status().ToString();
          auto unpacker = Unpacker::Create(*staged + "/diff", {});
          TarWriter tar;
          tar.Dir("d/", {.mode = 0700, .uid = 1000, .gid = 1000});
          tar.File("d/f", "x", {.mode = 04711, .uid = 1001}).File("d/.wh.gone", "");
          tar.File("d", "file now").Device("null", '3', 1, 3);
          const std::string archive = tar.Done();
          archive::StringSource source(archive);
          archive::TarReader reader(source);
          if (const Status status = unpacker->Unpack(reader); !status.ok())
            return status.ToString();
          if (const Status status =
                  unpacker->Finish(CallContext::Background(std::chrono::minutes(1)), {});
              !status.ok())
            return status.ToString();
          if (const Status status = store->Commit(*staged, chain); !status.ok())
            return status.ToString();
          if (const Status status = store->Sync(); !status.ok()) return status.ToString();
          if (const Status status = store->Discard(layout.Layer(chain.hex())); !status.ok())
            return status.ToString();
          const CallContext cc = CallContext::Background(std::chrono::seconds(20));
          process::Command command;
          command.program = "/usr/bin/env";
          command.env = process::PlainEnvironment();
          command.args = {"sh", "-c", "cat; id -u"};
          command.stdin_data = "asked ";
          const auto output = process::Run(cc, command);
          if (!output.ok()) return output.status().ToString();
          if (output->out != "asked 0\n") return "helper: " + output->out + output->err;
          const auto resolved = http::ResolveHost(cc, "localhost", 80);
          return resolved.ok() ? "" : resolved.status().ToString();
        }) == "");
}

TEST_CASE("A confined imaged cannot mount, trace, reach the node's secrets or leave its root") {
  const crisp::testing::TestRoot root;
  root.Write("outside/file", "untouched");
  const std::string outside = root / "outside";
  const settings::Settings settings = SettingsIn(root);
  const bool landlock = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, 1U) > 0;
  CHECK(InImaged(settings, [&](const os::Confined&) -> std::string {
          const std::string inside = Layout(settings.state_root).root();
          if (::mount("none", inside.c_str(), "tmpfs", 0, nullptr) == 0) return "mounts";
          if (::ptrace(PTRACE_SEIZE, ::getppid(), nullptr, nullptr) == 0) return "traces";
          if (::kill(::getppid(), 0) == 0 && landlock) return "signals its parent";
          if (!landlock) return "";
          if (os::WriteFile(outside + "/new", "x").ok()) return "makes files outside";
          if (os::WriteFile(outside + "/file", "x").ok()) return "writes outside";
          if (os::RemoveFile(outside + "/file").ok()) return "removes outside";
          for (const char* path : {"/etc/shadow", "/etc/passwd-", "/root/.bashrc"})
            if (os::Exists(path) && os::ReadFile(path).ok()) return std::string("reads ") + path;
          if (os::ReadFile(fmt::format("/proc/{}/environ", ::getppid())).ok())
            return "reads its parent's environment";
          // What it unpacks it can never run.
          if (!os::WriteFile(inside + "/program", "#!/bin/sh\n", 0755).ok()) return "no program";
          process::Command command;
          command.program = inside + "/program";
          const CallContext cc = CallContext::Background(std::chrono::seconds(20));
          return process::Run(cc, command).code() == Code::kPermissionDenied ? "" : "runs it";
        }) == "");
  CHECK(root.Read("outside/file") == "untouched");
  CHECK(os::ListDir(outside)->size() == 1);
}

TEST_CASE("A confined imaged checks GPG signatures") {
  const crisp::testing::TestRoot root;
  const settings::Settings settings = SettingsIn(root);
  const std::string home = root / "signer";
  REQUIRE(os::MakeDirs(home, 0700).ok());
  const auto run = [](const std::string& program, std::vector<std::string> words,
                      const std::string& input = "") {
    process::Command command;
    command.program = program;
    command.args = std::move(words);
    command.env = process::PlainEnvironment();
    command.stdin_data = input;
    const auto output = process::Run(CallContext::Background(std::chrono::seconds(30)), command);
    REQUIRE(output.ok());
    CHECK(output->exit_code == 0);
    return output->out;
  };
  const auto gpg = [&](std::vector<std::string> words, const std::string& input = "") {
    std::vector<std::string> all = {"--homedir",       home,       "--batch",      "--quiet",
                                    "--pinentry-mode", "loopback", "--passphrase", ""};
    all.insert(all.end(), words.begin(), words.end());
    return run("/usr/bin/gpg", all, input);
  };
  gpg({"--quick-gen-key", "a@x", "ed25519", "sign"});
  const std::string key = gpg({"--export", "a@x"});
  const std::string message = gpg({"--sign", "--output", "-"}, "the payload");
  run("/usr/bin/gpgconf", {"--homedir", home, "--kill", "all"});
  CHECK(InImaged(settings, [&](const os::Confined&) -> std::string {
          const CallContext soon = CallContext::Background(std::chrono::seconds(30));
          const auto keys = GpgKeys::Import(soon, Layout(settings).root(), {key});
          if (!keys.ok()) return keys.status().ToString();
          const auto payload = keys->Verify(soon, message);
          if (!payload.ok()) return payload.status().ToString();
          return *payload == "the payload" ? "" : "says " + *payload;
        }) == "");
}

TEST_CASE(
    "A confined imaged reads what its configuration names, and knows what it cannot read yet") {
  const crisp::testing::TestRoot root;
  settings::Settings settings = SettingsIn(root);
  const auto policy = [&root](const std::string& key) {
    return fmt::format(
        R"({{"default":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{}"}}]}})", root / key);
  };
  settings.imaged.policy = root.Write("trust/policy.json", policy("elsewhere/key"));
  settings.imaged.registries_d = root / "trust/registries.d";
  settings.imaged.hosts_dir = root / "hosts";
  root.Write("hosts/a.example/hosts.toml",
             fmt::format("server = 'https://a.example'\nca = '{0}/ca'\nclient = [['{0}/cert', "
                         "'{0}/private']]\n[host.'https://b.example']\nca = '{0}/other'\n",
                         root / "certs"));
  root.Write("hosts/broken/hosts.toml", "ca = ");
  const std::vector<std::string> named = {
      root.Write("elsewhere/key", "k"), root.Write("certs/ca", "c"), root.Write("certs/cert", "c"),
      root.Write("certs/private", "p"), root.Write("certs/other", "o")};
  // What it is after somebody has edited it.
  settings::Settings edited = settings;
  edited.imaged.policy = root.Write("trust/edited.json", policy("new/key"));
  root.Write("new/key", "k");
  root.Write("new/signatures/x", "s");
  edited.imaged.registries_d = root / "trust/edited.d";
  root.Write("trust/edited.d/a.yaml",
             fmt::format("default-docker:\n  lookaside: file://{}\n", root / "new/signatures"));
  CHECK(InImaged(settings, [&](const os::Confined& confined) -> std::string {
          for (const std::string& path : named)
            if (!os::ReadFile(path).ok()) return "does not read " + path;
          if (confined.landlock_abi() == 0) return "";
          if (os::ReadFile(root / "new/key").ok()) return "reads what nobody named";
          const auto missed = [&](const settings::Settings& now) {
            daemon::Options options;
            options.service = "imaged";
            const auto plan = PlanConfinement(now, options);
            return plan.ok() && *plan ? confined.Outdated(**plan) : std::vector<std::string>{"?"};
          };
          if (!missed(settings).empty()) return "misses " + missed(settings).front();
          return missed(edited) == std::vector{root / "new/key", root / "new/signatures"}
                     ? ""
                     : fmt::format("misses only {}", fmt::join(missed(edited), ", "));
        }) == "");
}

TEST_CASE("The setting turns the confinement off") {
  const crisp::testing::TestRoot root;
  settings::Settings settings = SettingsIn(root);
  settings.imaged.confine = false;
  const auto plan = PlanConfinement(settings, {});
  REQUIRE(plan.ok());
  CHECK_FALSE(plan->has_value());
}

}  // namespace
}  // namespace crisp::imaged
