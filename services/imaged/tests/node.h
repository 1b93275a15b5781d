#pragma once

#include <memory>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "cri/v1/api.pb.h"
#include "libs/os/files.h"
#include "libs/testing/test_root.h"
#include "services/imaged/core/gc.h"
#include "services/imaged/core/images.h"
#include "services/imaged/core/pull.h"
#include "services/imaged/core/snapshots.h"

namespace crisp::imaged::testing {

/// Everything of imaged below rpc/, in a directory of its own.
struct Node {
  explicit Node(std::chrono::milliseconds stall = std::chrono::seconds(60))
      : Node(http::ClientOptions{.stall_timeout = stall}) {}
  explicit Node(const PullOptions& pull) : Node(http::ClientOptions(), pull) {}
  explicit Node(http::ClientOptions http, const PullOptions& pull = {})
      : client(std::move(http)), options(pull) {
    catalogue->SetNames([this](std::string_view image) { return hosts.NamesHere(image); });
  }

  crisp::testing::TestRoot root;
  Layout layout{root.path()};
  LayerStore store = *LayerStore::Open(layout);
  std::unique_ptr<Catalogue> catalogue = *Catalogue::Open(layout.Catalogue(), "this boot");
  metrics::Registry registry;
  Metrics metrics{registry};
  work::Pool pool;
  http::Client client;
  /// Its configuration: files below etc/, which are absent until a test writes them.
  Hosts hosts{client,
              {.registries_conf = root / "etc/registries.conf",
               .hosts_dir = root / "etc/hosts.d",
               .certs_dirs = {root / "etc/certs.d"},
               .auth_files = {root / "etc/auth.json"},
               .helper_dirs = {root / "etc/bin"}}};
  PullOptions options;
  Trust trust{{.policy = root / "policy.json",
               .registries_dir = root / "registries.d",
               .temp_root = root.path()},
              client,
              Clock::System()};
  Puller puller{options, pool,  client,  hosts,           *catalogue,
                store,   trust, metrics, Clock::System(), [] {}};
  Images images{*catalogue, layout, {"127.0.0.1:1/pinned"}, Clock::System()};
  Snapshots snapshots{*catalogue, store, trust, metrics, Clock::System()};
  Gc gc{*catalogue, store, metrics, Clock::System(), [] { return true; }};

  static CallContext Call() { return CallContext::Background(std::chrono::seconds(60)); }
  Result<std::string> Pull(const std::string& image, const Credentials& credentials = {}) {
    return puller.Pull(Call(), image, credentials);
  }
  runtime::v1::Image Image(const std::string& name) {
    runtime::v1::ImageStatusRequest request;
    runtime::v1::ImageStatusResponse response;
    request.mutable_image()->set_image(name);
    CHECK(images.ImageStatus(request, response).ok());
    return response.image();
  }
  std::string File(const std::string& image, std::size_t layer_from_top, const std::string& path) {
    const auto layers = catalogue->Layers(image);
    REQUIRE(layers.ok());
    const auto& chain = (*layers)[layers->size() - 1 - layer_from_top];
    return os::ReadFile(layout.Diff(chain.hex()) + "/" + path).value_or("<absent>");
  }
  /// Nothing is on its way, and no layer is there that the catalogue does not know.
  void CheckClean() {
    CHECK(os::ListDir(layout.Staging())->empty());
    const std::vector<std::string> names = *os::ListDir(layout.Layers());
    for (const std::string& name : names)
      CHECK(*catalogue->HasLayer(*digest::Digest::Parse("sha256:" + name)));
  }
};

}  // namespace crisp::imaged::testing
