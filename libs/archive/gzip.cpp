#include "libs/archive/gzip.h"

#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

namespace crisp::archive {
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 20U;

}  // namespace

Result<std::string> Gzip(std::string_view text) {
  // Large: not for the stack.
  const auto stream = std::make_unique<isal_zstream>();
  isal_deflate_init(stream.get());
  std::vector<std::uint8_t> work(ISAL_DEF_LVL1_DEFAULT);
  stream->level = 1;
  stream->level_buf = work.data();
  stream->level_buf_size = static_cast<std::uint32_t>(work.size());
  stream->gzip_flag = IGZIP_GZIP;
  stream->flush = NO_FLUSH;
  std::vector<std::uint8_t> piece(kPiece);
  std::string input;
  std::string out;
  while (stream->internal_state.state != ZSTATE_END) {
    if (stream->avail_in == 0) {
      // The library's input is not const.
      input.assign(text.substr(0, kPiece));
      text.remove_prefix(input.size());
      stream->next_in = reinterpret_cast<std::uint8_t*>(input.data());
      stream->avail_in = static_cast<std::uint32_t>(input.size());
      stream->end_of_stream = text.empty() ? 1 : 0;
    }
    stream->next_out = piece.data();
    stream->avail_out = static_cast<std::uint32_t>(piece.size());
    if (isal_deflate(stream.get()) != COMP_OK) return Internal("gzip: the text is not taken");
    const std::size_t made = piece.size() - stream->avail_out;
    out.append(reinterpret_cast<const char*>(piece.data()), made);
  }
  return out;
}

}  // namespace crisp::archive
