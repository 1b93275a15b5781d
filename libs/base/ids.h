#pragma once

#include <string>
#include <string_view>

#include "libs/base/strong_id.h"

namespace crisp {

using PodId = StrongId<struct PodIdTag>;
using ContainerId = StrongId<struct ContainerIdTag>;
/// A pod's or a container's id, where imaged and netd hold things for an owner without caring which
/// it is.
using OwnerId = StrongId<struct OwnerIdTag>;

/// Where new ids come from; a parameter, so that tests choose them.
class IdSource {
 public:
  virtual ~IdSource() = default;
  /// 64 lower-case hexadecimal characters, never the same twice (cAdvisor and log agents find
  /// containers by that form).
  virtual std::string Next() = 0;
};

/// 256 random bits from getrandom(2).
class RandomIds final : public IdSource {
 public:
  std::string Next() override;
};

/// True for 1 to 64 lower-case hexadecimal characters: the only ids and id prefixes that may reach
/// a path.
bool IsIdOrPrefix(std::string_view text);
/// True for exactly 64 lower-case hexadecimal characters.
bool IsFullId(std::string_view text);

}  // namespace crisp
