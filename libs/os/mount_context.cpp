#include "libs/os/mount_context.h"

#include <unistd.h>

#include <array>

namespace crisp::os {

std::string ContextMessages(int context) {
  std::string all;
  std::array<char, 512> line;
  while (true) {
    const ssize_t length = ::read(context, line.data(), line.size());
    if (length <= 0) return all;
    if (!all.empty()) all += "; ";
    all.append(line.data(), static_cast<std::size_t>(length));
    while (!all.empty() && all.back() == '\n') all.pop_back();
  }
}

Status ContextError(int error, int context, std::string_view what) {
  const std::string words = ContextMessages(context);
  if (words.empty()) return Status::FromErrno(error, what);
  return Status::Errno(error, "{} ({})", what, words);
}

}  // namespace crisp::os
