#pragma once

#include <exception>
#include <new>
#include <type_traits>

#include "libs/base/status.h"

namespace crisp::work {

/// `fn()`, a Status or a Result. An exception that leaves it is our bug: whoever waits for its
/// answer is told at once (kInternal), instead of waiting for ever. Want of memory is not told.
template <typename F>
std::invoke_result_t<const F&> TellExceptions(const F& fn) {
  try {
    return fn();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    return Internal("unexpected exception: {}", e.what());
  }
}

}  // namespace crisp::work
