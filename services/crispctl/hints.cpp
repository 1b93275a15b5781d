#include "services/crispctl/hints.h"

#include <array>
#include <string>

namespace crisp::ctl {
namespace {

struct Hint {
  Code code;
  std::string_view words;  // of the message; empty: any
  std::string_view text;
};

// The first that fits. The words are those of our own daemons; the code alone says too little of a
// call that went through several of them. ("Deadline Exceeded" is gRPC's: crisp did not answer in
// time.)
constexpr std::array kHints = {
    Hint{
        Code::kUnavailable, "network configuration",
        "give it one: cp /usr/share/crisp/examples/10-bridge.conflist /etc/cni/net.d/ (in a source "
        "tree: deploy/examples); without --net no network is needed"},
    Hint{Code::kUnavailable, "network plugin",
         "install the plugin (Debian: containernetworking-plugins), or name its directory in "
         "netd.bin_dirs"},
    Hint{Code::kUnavailable, "",
         "'crispctl status' says which daemon is away, and how to start it"},
    Hint{Code::kDeadlineExceeded, "Deadline Exceeded",
         "'crispctl status' says which daemon does not answer"},
    Hint{Code::kDeadlineExceeded, " took ",
         "'crispctl why' with the pod, the container or the image says what it waits for"},
    Hint{Code::kUnknown, "RegistryUnavailable:",
         "is the registry's name right, and does it run? One without TLS must be named in "
         "imaged.insecure_registries ('crispctl config set'), a proxy in /etc/crisp/imaged.env"},
    Hint{Code::kUnknown, "SignatureValidationFailed:",
         "imaged.policy names the file that says which signatures are asked for"},
    Hint{Code::kUnauthenticated, "",
         "give the registry's user and password: crispctl pull --creds-stdin, or a file of "
         "imaged.auth_files"},
    Hint{Code::kPermissionDenied, "refuses access",
         "these credentials may not pull it: try others with crispctl pull --creds-stdin"},
    Hint{Code::kNotFound, "(credentials:",
         "are name and tag right? Some registries hide what is private from those without "
         "credentials: crispctl pull --creds-stdin"},
    Hint{Code::kNotFound, "no image ", "'crispctl images' shows them all"},
    Hint{Code::kNotFound, "docker-credential-",
         "install the helper, or name its directory in imaged.credential_helper_dirs"},
    Hint{
        Code::kInvalidArgument, "runtime handler '",
        "rund.runtimes has them ('crispctl config'); without --runtime it is rund.default_runtime"},
    Hint{Code::kFailedPrecondition, "is not running",
         "'crispctl ps -a' shows how it ended, 'crispctl logs' what it wrote"},
    Hint{Code::kFailedPrecondition, "is not ready",
         "'crispctl pods' shows its state; a pod that was stopped is not started again"},
    Hint{Code::kResourceExhausted, "No space left on device",
         "'crispctl images' shows what can go with 'crispctl rmi'"},
};

}  // namespace

std::string_view HintFor(const Status& status) {
  for (const Hint& hint : kHints) {
    if (hint.code == status.code() && status.message().find(hint.words) != std::string::npos) {
      return hint.text;
    }
  }
  return {};
}

}  // namespace crisp::ctl
