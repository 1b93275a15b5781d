#pragma once

#include <string>
#include <vector>

#include "libs/settings/settings.h"

namespace crisp::ctl {

/// What a unit of systemd has to be told because of the settings.
struct UnitDropIn {
  std::string unit;  // "crisp-imaged@.service"
  std::string text;  // of the drop-in
};

/// The shipped units know the default places only (deploy/systemd): the CRI socket, and where
/// daemons that see the rest of the node read-only may write. Empty when the settings keep to them.
std::vector<UnitDropIn> UnitDropIns(const settings::Settings& settings);

}  // namespace crisp::ctl
