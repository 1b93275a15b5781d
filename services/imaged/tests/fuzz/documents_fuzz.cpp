// What registries and administrators write: manifests and indexes of all formats, image
// configurations, policies, signed claims, image names in the scopes of a policy, challenges, and
// the files that say where images come from. The first byte says which.
#include <string_view>

#include "services/imaged/core/image_config.h"
#include "services/imaged/core/manifest.h"
#include "services/imaged/core/policy.h"
#include "services/imaged/registry/auth_files.h"
#include "services/imaged/registry/hosts_toml.h"
#include "services/imaged/registry/registries_conf.h"
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
    case 'o': {  // Docker's first format, and the part of it that is signed
      const auto old = ParseSchema1(text, 127);
      if (old.ok()) static_cast<void>(ConfigOf(*old, old->layers).size());
      static_cast<void>(SignedPayload(std::string(text)).ok());
      break;
    }
    case 'w':
      static_cast<void>(ParseChallenges(text).size());
      static_cast<void>(NormalizeServer(text).size());
      break;
    case 'r': {
      const auto conf = RegistriesConf::Parse(text, "registries.conf");
      const auto image = crisp::ref::Parse("a.example.org:5000/b/c:1");
      if (!conf.ok() || !image.ok()) break;
      static_cast<void>(conf->PlacesOf(*image).ok());
      for (const char* name : {"short", "b/c:1", "a.example.org/x"})
        static_cast<void>(conf->NamesOf(name).ok());
      break;
    }
    case 't': static_cast<void>(HostsToml::Parse(text, "hosts.toml", "/d", "a.b").ok()); break;
    case 'a': static_cast<void>(AuthFile::Parse(text, "auth.json").ok()); break;
    default: break;
  }
  return 0;
}
