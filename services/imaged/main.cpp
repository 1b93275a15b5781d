#include <cstdio>

#include "libs/daemon/daemon.h"
#include "libs/os/confine.h"
#include "services/imaged/app.h"
#include "services/imaged/confinement.h"

int main(int argc, char** argv) {
  // Credentials pass through this process.
  if (const crisp::Status kept = crisp::os::KeepMemoryPrivate(); !kept.ok()) {
    std::fprintf(stderr, "crisp-imaged: %s\n", kept.message().c_str());
    return 1;
  }
  return crisp::daemon::Main(argc, argv, "imaged", crisp::imaged::MakeApp,
                             crisp::imaged::PlanConfinement, crisp::imaged::CheckSettings);
}
