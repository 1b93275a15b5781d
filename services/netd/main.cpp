#include "libs/daemon/daemon.h"
#include "services/netd/app.h"

int main(int argc, char** argv) {
  return crisp::daemon::Main(argc, argv, "netd", crisp::netd::MakeApp, nullptr,
                             crisp::netd::CheckSettings);
}
