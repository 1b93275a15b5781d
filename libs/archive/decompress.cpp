#include "libs/archive/decompress.h"

#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "libs/base/try.h"

namespace crisp::archive {
namespace {

using std::string_view_literals::operator""sv;

// The largest window that a layer may ask for: what `zstd --long=27` and every registry client
// take.
constexpr int kMaxZstdWindowLog = 27;

/// The part of the source's last piece that is not used up yet.
class Input {
 public:
  explicit Input(ChunkSource& source) : source_(source) {}

  /// False at the end of the source.
  Result<bool> Fill() {
    if (!piece_.empty()) return true;
    if (ended_) return false;
    piece_ = CRISP_TRY(source_.Next());
    ended_ = piece_.empty();
    return !ended_;
  }
  std::string_view piece() const { return piece_; }
  void Use(std::size_t count) { piece_.remove_prefix(count); }

 private:
  ChunkSource& source_;
  std::string_view piece_;
  bool ended_ = false;
};

class Copy final : public Decompressor {
 public:
  explicit Copy(ChunkSource& source) : input_(source) {}

  Result<std::size_t> Read(std::span<char> into) override {
    std::size_t done = 0;
    while (done < into.size() && CRISP_TRY(input_.Fill())) {
      const std::size_t count = std::min(into.size() - done, input_.piece().size());
      std::memcpy(into.data() + done, input_.piece().data(), count);
      input_.Use(count);
      done += count;
    }
    return done;
  }

 private:
  Input input_;
};

class Gzip final : public Decompressor {
 public:
  explicit Gzip(ChunkSource& source) : input_(source) { StartMember(); }

  Result<std::size_t> Read(std::span<char> into) override {
    std::size_t done = 0;
    while (done < into.size() && !ended_) {
      if (between_members_ && !CRISP_TRY(NextMember())) break;
      const std::size_t made = CRISP_TRY(Step(into.subspan(done)));
      done += made;
    }
    return done;
  }

 private:
  void StartMember() {
    isal_inflate_init(&state_);
    state_.crc_flag = ISAL_GZIP;
  }

  /// One call of the library: uses up input, or makes output, or both.
  Result<std::size_t> Step(std::span<char> into) {
    const bool more = CRISP_TRY(input_.Fill());
    const auto in_size = static_cast<std::uint32_t>(
        std::min<std::size_t>(input_.piece().size(), 1U << 30U));  // the library counts in 32 bits
    const auto out_size = static_cast<std::uint32_t>(std::min<std::size_t>(into.size(), 1U << 30U));
    // The library never writes to its input; its struct merely lacks a const.
    state_.next_in = reinterpret_cast<std::uint8_t*>(const_cast<char*>(input_.piece().data()));
    state_.avail_in = in_size;
    state_.next_out = reinterpret_cast<std::uint8_t*>(into.data());
    state_.avail_out = out_size;
    const int outcome = isal_inflate(&state_);
    if (outcome < 0) return DataLoss("the gzip stream is damaged ({})", Reason(outcome));
    input_.Use(in_size - state_.avail_in);
    const std::size_t made = out_size - state_.avail_out;
    if (state_.block_state == ISAL_BLOCK_FINISH) {
      between_members_ = true;
    } else if (!more && made == 0) {
      return DataLoss("the gzip stream is cut short");
    }
    return made;
  }

  /// After a member: another one, the end, or the zero padding that gzip(1) allows too.
  Result<bool> NextMember() {
    while (CRISP_TRY(input_.Fill())) {
      const char first = input_.piece().front();
      if (first == '\x1f' && !padding_) {
        StartMember();
        between_members_ = false;
        return true;
      }
      if (first != '\0') return DataLoss("the gzip stream is followed by something else");
      padding_ = true;
      input_.Use(1);
    }
    ended_ = true;
    return false;
  }

  static std::string_view Reason(int outcome) {
    switch (outcome) {
      case ISAL_INVALID_BLOCK: return "invalid block";
      case ISAL_INVALID_SYMBOL: return "invalid symbol";
      case ISAL_INVALID_LOOKBACK: return "invalid distance";
      case ISAL_INVALID_WRAPPER: return "invalid header";
      case ISAL_UNSUPPORTED_METHOD: return "unsupported method";
      case ISAL_INCORRECT_CHECKSUM: return "its checksum is wrong";
      default: return "unknown error";
    }
  }

  Input input_;
  inflate_state state_;
  bool between_members_ = false;
  bool padding_ = false;
  bool ended_ = false;
};

class Zstd final : public Decompressor {
 public:
  explicit Zstd(ChunkSource& source) : input_(source), stream_(ZSTD_createDStream()) {
    CRISP_CHECK(stream_ != nullptr);
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, kMaxZstdWindowLog);
  }

  Result<std::size_t> Read(std::span<char> into) override {
    ZSTD_outBuffer out{into.data(), into.size(), 0};
    while (out.pos < out.size) {
      const bool more = CRISP_TRY(input_.Fill());
      if (!more && frame_done_) break;
      ZSTD_inBuffer in{input_.piece().data(), input_.piece().size(), 0};
      const std::size_t before = out.pos;
      const std::size_t hint = ZSTD_decompressStream(stream_.get(), &out, &in);
      if (ZSTD_isError(hint) != 0U)
        return DataLoss("the zstd stream is damaged ({})", ZSTD_getErrorName(hint));
      input_.Use(in.pos);
      frame_done_ = hint == 0;
      if (!more && !frame_done_ && out.pos == before)
        return DataLoss("the zstd stream is cut short");
    }
    return out.pos;
  }

 private:
  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };

  Input input_;
  std::unique_ptr<ZSTD_DStream, Free> stream_;
  bool frame_done_ = false;
};

}  // namespace

std::string_view CompressionName(Compression compression) {
  switch (compression) {
    case Compression::kNone: return "none";
    case Compression::kGzip: return "gzip";
    case Compression::kZstd: return "zstd";
  }
  return "unknown";
}

Result<Compression> DetectCompression(std::string_view head) {
  if (head.starts_with("\x1f\x8b"sv)) return Compression::kGzip;
  if (head.starts_with("\x28\xb5\x2f\xfd"sv)) return Compression::kZstd;
  // A skippable frame, as zstd:chunked layers may begin with: 0x184D2A50 to 0x184D2A5F.
  if (head.size() >= 4 && (static_cast<unsigned char>(head[0]) & 0xF0U) == 0x50U &&
      head.substr(1).starts_with("\x2a\x4d\x18"sv))
    return Compression::kZstd;
  if (head.starts_with("BZh"sv))
    return Unimplemented("layers compressed with bzip2 are not supported");
  if (head.starts_with("\xfd"
                       "7zXZ"sv))
    return Unimplemented("layers compressed with xz are not supported");
  return Compression::kNone;
}

std::unique_ptr<Decompressor> MakeDecompressor(Compression compression, ChunkSource& source) {
  switch (compression) {
    case Compression::kGzip: return std::make_unique<Gzip>(source);
    case Compression::kZstd: return std::make_unique<Zstd>(source);
    case Compression::kNone: break;
  }
  return std::make_unique<Copy>(source);
}

Result<std::string_view> PlainSource::Next() {
  constexpr std::size_t kPiece = std::size_t{256} << 10U;
  piece_.resize(kPiece);
  const std::size_t count = CRISP_TRY(decompressor_.Read(piece_));
  return std::string_view(piece_).substr(0, count);
}

}  // namespace crisp::archive
