#include "libs/daemon/daemon.h"
#include "services/crid/app.h"
#include "services/crid/confinement.h"

int main(int argc, char** argv) {
  return crisp::daemon::Main(argc, argv, "crid", crisp::crid::MakeApp,
                             crisp::crid::PlanConfinement);
}
