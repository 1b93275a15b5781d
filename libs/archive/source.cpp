#include "libs/archive/source.h"

#include <unistd.h>

#include <cerrno>

#include "libs/base/try.h"
#include "libs/os/files.h"

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

Result<std::string_view> FileSource::Next() {
  constexpr std::size_t kPiece = std::size_t{256} << 10U;
  piece_.resize(kPiece);
  while (true) {
    const ssize_t count = ::read(fd_, piece_.data(), piece_.size());
    if (count >= 0) return std::string_view(piece_.data(), static_cast<std::size_t>(count));
    if (errno != EINTR) return Status::Errno(errno, "read {}", name_);
  }
}

Status WriteTo(const CallContext& cc, ChunkSource& source, int fd, std::string_view name) {
  while (true) {
    CRISP_TRY(cc.Check());
    const std::string_view piece = CRISP_TRY(source.Next());
    if (piece.empty()) return Status::Ok();
    CRISP_TRY(os::WriteAll(fd, piece, name));
  }
}

}  // namespace crisp::archive
