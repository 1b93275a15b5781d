#include <sys/stat.h>

#include <CLI/CLI.hpp>

#include "libs/base/try.h"
#include "libs/os/atomic_file.h"
#include "libs/os/files.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/convert/convert.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

struct ConvertArgs {
  std::string from;
  std::vector<std::string> paths;
  std::string out;
  std::string report;
  bool force = false;
};

std::optional<convert::Runtime> RuntimeOf(const std::string& name) {
  if (name == "crio") return convert::Runtime::kCrio;
  if (name == "containerd") return convert::Runtime::kContainerd;
  return std::nullopt;
}

/// Environments may have secrets: what comes of a file that not everybody may read is for its
/// owner.
mode_t ModeFor(const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    struct stat info {};
    if (::stat(file.c_str(), &info) != 0 || (info.st_mode & S_IROTH) == 0) return 0600;
  }
  return 0644;
}

Result<int> ConvertConfig(const Shared& shared, const ConvertArgs& args) {
  const convert::Source source = CRISP_TRY(convert::ReadSource(RuntimeOf(args.from), args.paths));
  const convert::Conversion conversion = CRISP_TRY(convert::Convert(source));
  if (!args.out.empty() && !args.force && os::Exists(args.out)) {
    return AlreadyExists("{} is there already: --force writes over it", args.out);
  }
  const std::string report = shared.json() ? convert::ReportJson(source, conversion.entries) + "\n"
                                           : convert::Report(source, conversion.entries);
  if (args.report.empty()) {
    Remark(report);
  } else {
    CRISP_TRY(os::WriteFileAtomic(args.report, report));
  }
  if (args.out.empty()) {
    Print(conversion.yaml);
  } else {
    CRISP_TRY(os::WriteFileAtomic(args.out, conversion.yaml, ModeFor(source.files), /*sync=*/true));
  }
  return kDone;
}

}  // namespace

void AddConvertCommand(CLI::App& config, Shared& shared) {
  const auto args = std::make_shared<ConvertArgs>();
  CLI::App* command = config.add_subcommand(
      "convert", "Write crisp.yaml from the configuration of CRI-O or containerd");
  command->add_option("PATH", args->paths,
                      "crio.conf (with its .d directory) or config.toml (with its imports), or the "
                      "directory that has them; none: where CRI-O or containerd look");
  command->add_option("--from", args->from, "crio or containerd; without it the file says so")
      ->check(CLI::IsMember({"crio", "containerd"}));
  command->add_option("-o,--out", args->out, "Write it there; without it to stdout")
      ->type_name("FILE");
  command
      ->add_option("--report", args->report,
                   "Write there what became of each option; without it to stderr")
      ->type_name("FILE");
  command->add_flag("--force", args->force, "Write over a file that is there");
  command->callback([&shared, args] {
    const Result<int> done = ConvertConfig(shared, *args);
    shared.exit_code = done.ok() ? *done : Tell(done.status());
  });
}

}  // namespace crisp::ctl
