// crisp-store-check: what `crispctl store check` runs. A program of its own because it works on the
// store's files, with imaged stopped.
#include <cstdio>
#include <cstring>
#include <optional>

#include "libs/base/try.h"
#include "libs/os/file_lock.h"
#include "libs/os/files.h"
#include "libs/settings/settings.h"
#include "services/imaged/core/store_check.h"

namespace {

using namespace crisp;

constexpr int kSound = 0;
constexpr int kDamaged = 1;
constexpr int kNotChecked = 2;

struct Wanted {
  std::string config = std::string(settings::kDefaultPath);
  bool quick = false;
  bool repair = false;
  bool wipe = false;
};

Result<int> Run(const Wanted& wanted) {
  const settings::Settings settings = CRISP_TRY(settings::Load(wanted.config));
  const imaged::Layout layout(settings);
  if (!os::Exists(layout.Catalogue())) {
    std::printf("no store at %s\n", layout.root().c_str());
    return kSound;
  }
  // Nobody may pull or mount while files are taken away.
  std::optional<os::FileLock> alone;
  if (wanted.repair || wanted.wipe)
    alone =
        CRISP_TRY(os::FileLock::TryLock(layout.InUse()).While("crisp-imaged runs: stop it first"));
  imaged::LayerStore store = CRISP_TRY(imaged::LayerStore::Open(layout));
  const std::string boot_id = CRISP_TRY(os::BootId());
  const std::unique_ptr<imaged::Catalogue> catalogue =
      CRISP_TRY(imaged::Catalogue::Open(layout.Catalogue(), boot_id));
  const CallContext cc = CallContext::Background(std::chrono::hours(24));
  if (wanted.wipe) {
    CRISP_TRY(imaged::WipeStore(cc, *catalogue, store));
    std::printf("the store is empty\n");
    return kSound;
  }
  const imaged::CheckReport report =
      CRISP_TRY(imaged::CheckStore(cc, *catalogue, store, Clock::System(),
                                   {.contents = !wanted.quick, .repair = wanted.repair}));
  for (const std::string& problem : report.problems) std::printf("problem: %s\n", problem.c_str());
  for (const std::string& done : report.repaired) std::printf("repaired: %s\n", done.c_str());
  std::printf("%lld images, %lld layers, %zu problems\n", static_cast<long long>(report.images),
              static_cast<long long>(report.layers), report.problems.size());
  if (report.problems.empty()) return kSound;
  if (!wanted.repair) return kDamaged;
  const imaged::CheckReport after =
      CRISP_TRY(imaged::CheckStore(cc, *catalogue, store, Clock::System(), {.contents = false}));
  for (const std::string& problem : after.problems) std::printf("still: %s\n", problem.c_str());
  return after.problems.empty() ? kSound : kDamaged;
}

}  // namespace

int main(int argc, char** argv) {
  Wanted wanted;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--quick") {
      wanted.quick = true;
    } else if (word == "--repair") {
      wanted.repair = true;
    } else if (word == "--wipe") {
      wanted.wipe = true;
    } else if (word == "--config" && i + 1 < argc) {
      wanted.config = argv[++i];
    } else {
      std::fprintf(stderr,
                   "usage: crisp-store-check [--config FILE] [--quick | --repair | --wipe]\n");
      return kNotChecked;
    }
  }
  const Result<int> ran = Run(wanted);
  if (ran.ok()) return *ran;
  std::fprintf(stderr, "crisp-store-check: %s\n", ran.status().message().c_str());
  return kNotChecked;
}
