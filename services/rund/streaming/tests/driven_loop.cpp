#include "services/rund/streaming/tests/driven_loop.h"

#include <boost/asio/io_context.hpp>
#include <chrono>

namespace crisp::rund::streaming {

using std::chrono::steady_clock;

bool DrivenLoop::Until(const std::function<bool()>& done) {
  const auto deadline = steady_clock::now() + std::chrono::seconds(30);
  while (!done()) {
    if (steady_clock::now() >= deadline) return false;
    // Now and then without a handler too: what is waited for may come from outside.
    loop_.io().run_one_for(std::chrono::milliseconds(5));
  }
  return true;
}

void DrivenLoop::Settle() {
  while (loop_.io().poll() > 0) {
  }
}

}  // namespace crisp::rund::streaming
