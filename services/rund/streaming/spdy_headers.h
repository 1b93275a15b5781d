#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/base/result.h"

namespace crisp::rund::streaming::spdy {

using Headers = std::vector<std::pair<std::string, std::string>>;

/// The value of a name, whatever its case; "" when absent.
std::string Find(const Headers& headers, std::string_view name);

/// What every header block is compressed against (SPDY/3, section 2.6.10.1).
std::string_view Dictionary();

/// The header blocks of one direction of a connection, which share one zlib stream: each block must
/// go through, in order, also those that nobody wants.
class HeaderReader {
 public:
  HeaderReader();
  ~HeaderReader();
  HeaderReader(const HeaderReader&) = delete;
  HeaderReader& operator=(const HeaderReader&) = delete;

  /// kInvalidArgument: not a header block; the connection is of no more use then.
  Result<Headers> Read(std::string_view block);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class HeaderWriter {
 public:
  HeaderWriter();
  ~HeaderWriter();
  HeaderWriter(const HeaderWriter&) = delete;
  HeaderWriter& operator=(const HeaderWriter&) = delete;

  std::string Write(const Headers& headers);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Of an inflated block; for tests. kInvalidArgument says what is wrong.
Result<Headers> ParseHeaders(std::string_view plain);

}  // namespace crisp::rund::streaming::spdy
