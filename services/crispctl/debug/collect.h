#pragma once

#include <string>

#include "services/crispctl/client.h"
#include "services/crispctl/debug/bundle.h"
#include "services/crispctl/findings.h"

// What a bundle has in it. Nothing here fails: a part that cannot be had is a line of the index.
namespace crisp::ctl::debug {

struct Scope {
  std::string config;  // the settings file
  Endpoint endpoint;
  std::string journalctl = "/usr/bin/journalctl";
};

/// Versions, status, settings, lists, containers, metrics.
void CollectCrisp(const Scope& scope, const Findings& found, Bundle& bundle);
/// The kernel, cgroups, mounts and disks below crisp's roots, names of CNI files, the last lines of
/// the daemons' logs.
void CollectNode(const Scope& scope, const Findings& found, Bundle& bundle);

}  // namespace crisp::ctl::debug
