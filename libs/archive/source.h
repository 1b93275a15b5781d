#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "libs/base/call_context.h"
#include "libs/base/result.h"

namespace crisp::archive {

/// Bytes that come piece by piece. Used by one thread at a time.
class ChunkSource {
 public:
  virtual ~ChunkSource() = default;
  /// The next piece, valid until the next call; empty at the end, and again empty when asked again.
  virtual Result<std::string_view> Next() = 0;
};

/// Shows its next piece before it hands it out. `source` must outlive it.
class PeekSource final : public ChunkSource {
 public:
  explicit PeekSource(ChunkSource& source) : source_(source) {}
  Result<std::string_view> Next() override;
  /// The next piece without taking it: the following Next answers it again.
  Result<std::string_view> Peek();

 private:
  ChunkSource& source_;
  std::string_view piece_;
  bool peeked_ = false;
};

/// A text in memory, handed out in pieces of at most `piece` bytes.
class StringSource final : public ChunkSource {
 public:
  explicit StringSource(std::string_view text, std::size_t piece = std::string_view::npos)
      : text_(text), piece_(piece) {}
  Result<std::string_view> Next() override {
    const std::string_view next = text_.substr(0, piece_);
    text_.remove_prefix(next.size());
    return next;
  }

 private:
  std::string_view text_;
  std::size_t piece_;
};

/// A file from where it stands to its end. `fd` must outlive it.
class FileSource final : public ChunkSource {
 public:
  /// `name` is for errors.
  FileSource(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
  Result<std::string_view> Next() override;

 private:
  const int fd_;
  const std::string name_;
  std::string piece_;
};

/// All of a source to the end of an open file. Ends with the call. `name` is for errors.
Status WriteTo(const CallContext& cc, ChunkSource& source, int fd, std::string_view name);

}  // namespace crisp::archive
