#include "libs/daemon/daemon.h"
#include "services/imaged/app.h"
#include "services/imaged/confinement.h"

int main(int argc, char** argv) {
  return crisp::daemon::Main(argc, argv, "imaged", crisp::imaged::MakeApp,
                             crisp::imaged::PlanConfinement);
}
