#include "services/crispctl/interrupts.h"

#include <csignal>
#include <cstdlib>

namespace crisp::ctl {

Interrupts::Interrupts() {
  static_cast<void>(std::signal(SIGPIPE, SIG_IGN));
  watch_ = loop_.OnSignals({SIGINT, SIGTERM, SIGHUP}, [this](int signal) { OnSignal(signal); });
  loop_.Start();
}

Status Interrupts::Check() const {
  return told_.stop_requested() ? Cancelled("interrupted") : Status::Ok();
}

void Interrupts::OnSignal(int signal) {
  constexpr int kBySignal = 128;  // as shells count
  ++signals_;
  if (signals_ == 1) told_.request_stop();
  if (signals_ == 2) told_twice_.request_stop();
  if (signals_ > 2) std::_Exit(kBySignal + signal);
}

}  // namespace crisp::ctl
