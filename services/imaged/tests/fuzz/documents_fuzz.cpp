// What registries and administrators write: manifests and indexes, image configurations, policies,
// signed claims, image names in the scopes of a policy. The first byte says which.
#include <string_view>

#include "services/imaged/core/image_config.h"
#include "services/imaged/core/manifest.h"
#include "services/imaged/core/policy.h"
#include "services/imaged/trust/signature.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace crisp::imaged;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'm': {
      const auto parsed = ParseManifest(text, "application/vnd.oci.image.manifest.v1+json", 127);
      if (parsed.ok() && std::holds_alternative<Index>(*parsed))
        static_cast<void>(ChooseEntry(std::get<Index>(*parsed), Platform::Host()).ok());
      break;
    }
    case 'd': static_cast<void>(ParseManifest(text, "", 127).ok()); break;
    case 'c': {
      const auto parsed = ParseImageConfig(text);
      if (parsed.ok()) static_cast<void>(ChainIds(parsed->diff_ids).size());
      break;
    }
    case 'p': {
      const auto policy = Policy::Parse(text);
      const auto image = crisp::ref::Parse("a.example.org:5000/b/c:1");
      if (policy.ok() && image.ok())
        for (const Requirement& each : *policy->For(*image).requirements)
          static_cast<void>(each.identity.Matches(*image, "a.example.org:5000/b/c:1"));
      break;
    }
    case 's':
      static_cast<void>(ParseClaim(text, kSimpleType).ok());
      static_cast<void>(DecodeSignature(text).ok());
      break;
    default: break;
  }
  return 0;
}
