#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "services/crispctl/client.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace crisp::ctl {

// Exit codes; run and exec end with the code of what they ran.
inline constexpr int kDone = 0;
inline constexpr int kFailed = 1;
inline constexpr int kWrongUse = 2;
inline constexpr int kNotReached = 3;
/// run and exec: crisp failed, not the command (as other tools of this kind have it).
inline constexpr int kNotRun = 125;

/// What is before the verb on the command line, and what the verb ended with.
struct Shared {
  std::string socket;
  std::string config;
  std::string output = "table";
  /// Where crisp's other programs are; empty: see FindProgram.
  std::string program_dir;
  /// run and exec: the words of COMMAND as they were typed.
  std::vector<std::string> command;
  int exit_code = kDone;

  bool json() const { return output == "json"; }
};

/// A client whose socket is served.
Result<std::unique_ptr<Client>> Connect(const Shared& shared);
/// The settings file that the command line means: that of --config; or else of the node whose
/// socket it names, as a daemon there says; or else the default one. kUnavailable: that daemon is
/// away.
Result<std::string> SettingsPath(const Shared& shared);
/// Says what failed; the exit code for it. What crisp has answered is never kNotReached, whoever it
/// could not reach itself.
int Tell(const Status& status);
/// The same for a failed Connect.
int TellNotReached(const Status& status);
/// Runs `verb` with a client and keeps its exit code.
void WithClient(Shared& shared, const std::function<Result<int>(Client&)>& verb,
                int failed = kFailed);
/// Does it to each of `names`, whatever became of those before it, and prints those that it was
/// done to (as JSON: one list of them).
int ForEach(const Shared& shared, const std::vector<std::string>& names,
            const std::function<Status(const std::string&)>& verb);

/// The whole command line.
void AddCommandLine(CLI::App& app, Shared& shared);
/// Takes what is behind the program's name and does it, as main wants it. From its first word on a
/// COMMAND is another program's: its options are not ours, and its words are left as they are
/// (CLI11 would take "[a,b]" apart). Throws CLI::ParseError.
void ParseCommandLine(CLI::App& app, Shared& shared, std::vector<std::string> words);

/// Of a verb that has another program run: its last operand. The words are in Shared::command.
CLI::Option* AddCommandOperand(CLI::App& verb, const std::string& text);

// Each adds its verbs to the program.
void AddNodeCommands(CLI::App& app, Shared& shared);       // status, version, reload
void AddWhyCommand(CLI::App& app, Shared& shared);         // why
void AddConfigCommands(CLI::App& app, Shared& shared);     // config ...
void AddConvertCommand(CLI::App& config, Shared& shared);  // config convert
void AddImageCommands(CLI::App& app, Shared& shared);      // pull, images, rmi
void AddArchiveCommands(CLI::App& app, Shared& shared);    // image import, image export
void AddRunCommand(CLI::App& app, Shared& shared);         // run
void AddListCommands(CLI::App& app, Shared& shared);       // ps, pods, inspect
void AddEndCommands(CLI::App& app, Shared& shared);        // stop, rm, rmp
void AddProcessCommands(CLI::App& app, Shared& shared);    // logs, checkpoint
void AddStreamCommands(CLI::App& app, Shared& shared);     // exec, attach, port-forward
void AddObserveCommands(CLI::App& app, Shared& shared);    // stats, events
void AddDebugCommands(CLI::App& app, Shared& shared);      // debug bundle
void AddTopCommand(CLI::App& app, Shared& shared);         // top
void AddStoreCommands(CLI::App& app, Shared& shared);      // store check
void AddNetworkCommands(CLI::App& app, Shared& shared);    // network check

/// Pulls with a progress display; the image's id.
Result<std::string> PullShown(Client& client, const std::string& image,
                              const runtime::v1::AuthConfig& auth, bool quiet);

/// The container of a full id, an id's unique prefix or a name. kNotFound says what to do.
Result<runtime::v1::Container> FindContainer(Client& client, const std::string& text);
Result<runtime::v1::PodSandbox> FindPod(Client& client, const std::string& text);

/// The namespace of the pods that "run" makes, each for one container.
inline constexpr std::string_view kRunNamespace = "crispctl";
/// "run" keeps the logs of its pods below this directory, and forgets them with the pod.
std::string RunLogRoot(const Endpoint& endpoint);
void ForgetRunLogs(const Endpoint& endpoint, const runtime::v1::PodSandbox& pod);

}  // namespace crisp::ctl
