#include "services/rund/core/exec.h"

#include <utility>
#include <vector>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "services/rund/core/status.h"
#include "services/rund/spec/process.h"

namespace crisp::rund {

Result<ContainerRef> FindRunning(const State& state, const ContainerId& id) {
  ContainerRef container = state.FindContainer(id);
  if (!container || !IsListed(*container)) return NotFound("no container {}", id);
  if (container->phase() != v1::LIVE || container->state() != runtime::v1::CONTAINER_RUNNING) {
    return FailedPrecondition("container {} is not running", id);
  }
  return container;
}

Result<ExecArgs> PlanExec(const Parts& parts, const ContainerId& id,
                          const google::protobuf::RepeatedPtrField<std::string>& command, bool tty,
                          std::string scratch_dir) {
  if (command.empty()) return InvalidArgument("cmd is empty");
  const ContainerRef container = CRISP_TRY(FindRunning(parts.state, id));
  const OciRuntime* runtime = CRISP_TRY(parts.runtimes.Kept(container->runtime()));
  const std::string text = CRISP_TRY(os::ReadFile(parts.config.layout.SpecPath(id)));
  nlohmann::json spec = CRISP_TRY(json::Parse(text));
  if (container->has_resources() && spec["process"].is_object()) {
    // As it is since the last update.
    std::vector<std::string> notes;
    spec["process"]["oomScoreAdj"] =
        OomScoreAdj(container->resources().oom_score_adj(), parts.spec_defaults.host, notes);
  }
  const std::vector<std::string> words(command.begin(), command.end());
  return ExecArgs{.runtime = runtime->info().path,
                  .runtime_options = runtime->options(),
                  .container_id = id.str(),
                  .process_json = json::Dump(CRISP_TRY(BuildExecProcess(spec, words, tty))),
                  .scratch_dir = std::move(scratch_dir),
                  .helper = parts.config.exec_helper};
}

}  // namespace crisp::rund
