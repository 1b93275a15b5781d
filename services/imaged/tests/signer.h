#pragma once

#include <catch2/catch.hpp>
#include <map>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/digest/digest.h"
#include "libs/http/client.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/process/command.h"
#include "libs/ref/ref.h"
#include "libs/testing/manual_clock.h"
#include "libs/testing/test_root.h"
#include "services/imaged/trust/trust.h"

namespace crisp::imaged::testing {

using crisp::testing::ManualClock;
using crisp::testing::TestRoot;
using nlohmann::json;

inline ref::ImageRef Ref(const std::string& text) { return ref::Parse(text).value(); }
inline CallContext Soon() { return CallContext::Background(std::chrono::seconds(30)); }

/// A signer with GPG and cosign keys, the repository that cosign writes to, and a Trust over files.
struct Signer {
  TestRoot root;
  http::Client client;
  ManualClock clock;  // a minute ahead of the time at first: certificates made by then are valid
  std::string home = root / "signer";
  std::string manifest = "{\"a manifest\":1}";
  digest::Digest digest = digest::Sha256Digest(manifest);
  std::map<std::string, std::string> repository;  // by tag or digest
  Trust trust{{.policy = root / "policy.json",
               .registries_dir = root / "registries.d",
               .temp_root = root.path()},
              client,
              clock};

  Signer() {
    clock.Advance(Clock::System().Wall() - clock.Wall() + std::chrono::minutes(1));
    REQUIRE(os::MakeDirs(home, 0700).ok());
    root.Write("registries.d/x.yaml",
               "default-docker:\n  lookaside: file://" + root / "sigs" + "\n");
  }
  ~Signer() { Run({"/usr/bin/gpgconf", "--homedir", home, "--kill", "all"}); }

  std::string Run(const std::vector<std::string>& words, const std::string& input = "") {
    process::Command command;
    command.program = words.front();
    command.args.assign(words.begin() + 1, words.end());
    command.env = process::PlainEnvironment();
    command.stdin_data = input;
    const auto output = process::Run(CallContext::Background(std::chrono::seconds(30)), command);
    REQUIRE(output.ok());
    INFO(output->err);
    CHECK(output->exit_code == 0);
    return output->out;
  }
  std::string Gpg(std::vector<std::string> words, const std::string& input = "") {
    std::vector<std::string> all = {"/usr/bin/gpg", "--homedir",    home,
                                    "--batch",      "--quiet",      "--pinentry-mode",
                                    "loopback",     "--passphrase", ""};
    all.insert(all.end(), words.begin(), words.end());
    return Run(all, input);
  }
  std::string MakeGpgKey(const std::string& who) {
    Gpg({"--quick-gen-key", who, "ed25519", "sign"});
    const std::string path = root / (who + ".gpg");
    Gpg({"--armor", "--output", path, "--export", who});
    return path;
  }
  std::string Claim(std::string_view type, const std::string& reference, std::string of = "") {
    if (of.empty()) of = digest.str();
    return json({{"critical",
                  {{"type", type},
                   {"image", {{"docker-manifest-digest", of}}},
                   {"identity", {{"docker-reference", reference}}}}},
                 {"optional", nullptr}})
        .dump();
  }
  void SignSimple(const std::string& who, const std::string& claim, int number = 1) {
    const std::string text = Gpg({"--local-user", who, "--sign", "--output", "-"}, claim);
    root.Write(fmt::format("sigs/q.io/a@sha256={}/signature-{}", digest.hex(), number), text);
  }
  std::string MakeCosignKey(const std::string& name) {
    Run({"/usr/bin/openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-out", root / name});
    Run({"/usr/bin/openssl", "pkey", "-in", root / name, "-pubout", "-out", root / name + ".pub"});
    return root / name + ".pub";
  }
  /// By a key of MakeCosignKey.
  std::string SignRaw(const std::string& name, const std::string& text) {
    return Run({"/usr/bin/openssl", "dgst", "-sha256", "-sign", root / name}, text);
  }
  /// As the image's only signature of cosign's. `more`: further annotations.
  void Attach(const std::string& claim, const std::string& raw, json more = json::object()) {
    const std::string blob = digest::Sha256Digest(claim).str();
    repository[blob] = claim;
    more["dev.cosignproject.cosign/signature"] = Base64(raw);
    repository["sha256-" + std::string(digest.hex()) + ".sig"] =
        json({{"schemaVersion", 2},
              {"layers",
               {{{"mediaType", "application/vnd.dev.cosign.simplesigning.v1+json"},
                 {"digest", blob},
                 {"size", claim.size()},
                 {"annotations", more}}}}})
            .dump();
  }
  void SignCosign(const std::string& name, const std::string& claim) {
    Attach(claim, SignRaw(name, claim));
  }
  void SetPolicy(const std::string& requirement) {
    root.Write("policy.json",
               R"({"default":[{"type":"reject"}],"transports":{"docker":{"q.io/a":[)" +
                   requirement + "]}}}");
  }
  Result<std::vector<Signature>> Pull(const std::string& name) {
    RepositoryReader reader;
    reader.manifest = [this](const CallContext&, const std::string& tag) -> Result<std::string> {
      const auto found = repository.find(tag);
      if (found == repository.end()) return NotFound("no {}", tag);
      return found->second;
    };
    reader.blob = [&](const CallContext& cc, const digest::Digest& blob,
                      Bytes limit) -> Result<std::string> {
      std::string text = CRISP_TRY(reader.manifest(cc, blob.str()));
      if (text.size() > limit.count()) return ResourceExhausted("{} is too large", blob.str());
      return text;
    };
    return trust.CheckPull(Soon(), Ref(name), {digest}, reader);
  }
  std::string Refusal(const std::string& name) {
    const auto pulled = Pull(name);
    return pulled.ok() ? "" : std::string(pulled.status().message());
  }
};

}  // namespace crisp::imaged::testing
