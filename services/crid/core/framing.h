#pragma once

#include <string>
#include <string_view>

namespace crisp::crid {

/// Appends a length-delimited field to a serialised message: a submessage whose bytes are ready;
/// see the protobuf encoding. `number` is below 16.
void AppendField(int number, std::string_view bytes, std::string& message);

}  // namespace crisp::crid
