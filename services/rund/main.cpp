#include "libs/daemon/daemon.h"
#include "services/rund/app.h"

int main(int argc, char** argv) {
  return crisp::daemon::Main(argc, argv, "rund", crisp::rund::MakeApp, nullptr,
                             crisp::rund::CheckSettings);
}
