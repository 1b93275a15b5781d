#include "services/crispctl/hints.h"

#include <string>
#include <utility>
#include <vector>

using namespace crisp;
using namespace crisp::ctl;

TEST_CASE("What crisp's daemons say has a hint where a person can do something") {
  // The messages are the daemons' own.
  const std::vector<std::pair<Status, std::string>> known = {
      {Unavailable("imaged/1 is away"), "crispctl status"},
      {Unavailable("no network configuration in /etc/cni/net.d"), "10-bridge.conflist"},
      {Unavailable("no usable network configuration: x.conflist: no name"), "10-bridge.conflist"},
      {Unavailable("network plugin 'bridge' is not in /opt/cni/bin"),
       "containernetworking-plugins"},
      {Unknown("RegistryUnavailable: r/x:1: registry r (credentials: none): connection refused"),
       "imaged.insecure_registries"},
      {NotFound("r/x:1: registry r (credentials: none): has no manifest 1"), "name and tag"},
      {Unauthenticated("r/x:1: registry r (credentials: none): refuses access"), "--creds-stdin"},
      {PermissionDenied("r/x:1: registry r (credentials: given): refuses access"), "try others"},
      {InvalidArgument("runtime handler 'kata' is not known; there are: runc"), "rund.runtimes"},
      {FailedPrecondition("container 0123 is not running"), "crispctl ps -a"},
      {DeadlineExceeded("Deadline Exceeded"), "crispctl status"},
      {DeadlineExceeded("the deadline of the call has passed; Attach took 2.0 s: ..."),
       "crispctl why"},
      {NotFound("no image 'x'"), "crispctl images"},
  };
  for (const auto& [status, hint] : known) {
    INFO(status.ToString());
    CHECK(std::string(HintFor(status)).find(hint) != std::string::npos);
  }
  CHECK(HintFor(Internal("a bug")).empty());
  CHECK(HintFor(DeadlineExceeded("the command ran for 1 s and was killed")).empty());
  CHECK(HintFor(NotFound("no pod has the id or the name 'x': 'crispctl pods' shows them all"))
            .empty());
}
