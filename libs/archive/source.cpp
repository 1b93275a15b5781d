#include "libs/archive/source.h"

#include "libs/base/try.h"

namespace crisp::archive {

Result<std::string_view> PeekSource::Next() {
  if (peeked_) {
    peeked_ = false;
    return piece_;
  }
  return source_.Next();
}

Result<std::string_view> PeekSource::Peek() {
  if (!peeked_) piece_ = CRISP_TRY(source_.Next());
  peeked_ = true;
  return piece_;
}

}  // namespace crisp::archive
