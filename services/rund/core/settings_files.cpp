#include "services/rund/core/settings_files.h"

#include "libs/base/try.h"
#include "libs/log/journal.h"
#include "libs/os/files.h"
#include "services/rund/spec/base_spec.h"
#include "services/rund/spec/blockio.h"
#include "services/rund/spec/security.h"
#include "services/rund/streaming/front.h"

namespace crisp::rund {
namespace {

/// libsystemd says nothing when there is none: all would be lost in silence.
Status CheckJournal(const Config& config) {
  if (!config.log_to_journal || os::Exists(std::string(log::kJournalSocket))) return Status::Ok();
  return FailedPrecondition("rund.log_journald: there is no journal at {}", log::kJournalSocket);
}

}  // namespace

Status CheckNeededFiles(const Config& config) {
  CRISP_TRY(CheckJournal(config));
  // Both are read again for each container; here to tell of mistakes before one needs them.
  if (!config.seccomp_profile.empty()) {
    CRISP_TRY(CheckSeccompProfile(config.seccomp_profile).While("rund.seccomp_profile"));
  }
  if (!config.blockio_config_file.empty()) {
    CRISP_TRY(LoadBlockioClasses(config.blockio_config_file).While("rund.blockio_config_file"));
  }
  return Status::Ok();
}

Status CheckFiles(const Config& config) {
  CRISP_TRY(CheckNeededFiles(config));
  for (const auto& [name, runtime] : config.runtimes) {
    if (runtime.base_spec.empty()) continue;
    CRISP_TRY(LoadBaseSpec(runtime.base_spec).While("rund.runtimes.{}.base_spec", name));
  }
  // Names its keys itself.
  if (!config.streaming.tls.certificate.empty()) {
    CRISP_TRY(streaming::LoadTls(config.streaming.tls));
  }
  return Status::Ok();
}

}  // namespace crisp::rund
