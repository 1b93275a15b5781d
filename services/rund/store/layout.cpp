#include "services/rund/store/layout.h"

namespace crisp::rund {

Layout Layout::Make(const std::string& state_root, const std::string& run_root,
                    const std::string& instance) {
  return {state_root + "/rund/" + instance, run_root + "/rund/" + instance};
}

}  // namespace crisp::rund
