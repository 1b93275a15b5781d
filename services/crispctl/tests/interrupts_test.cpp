#include "services/crispctl/interrupts.h"

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <future>

using namespace crisp;
using namespace crisp::ctl;

namespace {

/// Whether the token is requested within some seconds after `signal`.
bool Brings(int signal, const std::stop_token& token) {
  std::promise<void> told;
  const std::stop_callback on_stop(token, [&told] { told.set_value(); });
  ::kill(::getpid(), signal);
  return told.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready;
}

}  // namespace

TEST_CASE("A first signal asks to end, a second one at once") {
  const Interrupts interrupts;
  CHECK(interrupts.Check().ok());
  CHECK(Brings(SIGHUP, interrupts.told()));
  CHECK(interrupts.Check().code() == Code::kCancelled);
  CHECK_FALSE(interrupts.told_twice().stop_requested());
  CHECK(Brings(SIGINT, interrupts.told_twice()));
}

TEST_CASE("The end of all readers is an end as well, and no signal's business") {
  Interrupts interrupts;
  ::raise(SIGPIPE);
  CHECK(interrupts.Check().ok());
  interrupts.End();
  CHECK(interrupts.Check().code() == Code::kCancelled);
  CHECK(interrupts.told().stop_requested());
  CHECK_FALSE(interrupts.told_twice().stop_requested());
}
