#include "libs/daemon/daemon.h"
#include "services/crid/app.h"

int main(int argc, char** argv) {
  return crisp::daemon::Main(argc, argv, "crid", crisp::crid::MakeApp);
}
