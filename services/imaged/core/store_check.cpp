#include "services/imaged/core/store_check.h"

#include <algorithm>
#include <limits>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/work/pause.h"
#include "services/imaged/store/layer_reader.h"
#include "services/imaged/store/tree_digest.h"
#include "services/imaged/store/usage.h"

namespace crisp::imaged {
namespace {

constexpr auto kAll = std::numeric_limits<std::uint64_t>::max();

/// "" when the layer is as it was; an error only when the looking fails.
Result<std::string> Damage(const CallContext& cc, Catalogue& catalogue, const LayerStore& store,
                           const CatalogueLayer& layer, WallTime now, bool contents,
                           const std::function<Status(std::uint64_t)>& pace) {
  const std::string path = store.PathOf(layer.chain);
  const Result<std::unique_ptr<archive::TreeReader>> opened = OpenLayer(path);
  if (opened.code() == Code::kNotFound)
    return fmt::format("layer {} is not there", layer.chain.str());
  if (!opened.ok())
    return fmt::format("layer {} cannot be read: {}", layer.chain.str(), opened.status().message());
  const Usage usage = CRISP_TRY(MeasureTree(path));
  if (usage.inodes != layer.inodes)
    return fmt::format("layer {} has {} files, it had {}", layer.chain.str(), usage.inodes,
                       layer.inodes);
  if (!contents) return std::string();
  const Result<std::string> tree = TreeDigest(path, pace);
  CRISP_TRY(cc.Check());
  if (!tree.ok())  // a disk that does not give back what it took
    return fmt::format("layer {} cannot be read: {}", layer.chain.str(), tree.status().message());
  if (!layer.tree.empty() && *tree != layer.tree)
    return fmt::format("layer {} is not what it was when it was read first", layer.chain.str());
  CRISP_TRY(catalogue.SetChecked(layer.chain, *tree, now));
  return std::string();
}

/// True when an imaged that runs is at it.
bool IsBusy(const LayerStore& store, const std::string& name) {
  constexpr std::size_t kHex = 64;
  const Result<digest::Digest> chain = digest::Digest::Parse("sha256:" + name.substr(0, kHex));
  return chain.ok() && store.TryLock(*chain).code() == Code::kUnavailable;
}

/// What lies in the store without the catalogue's knowing it.
Result<std::vector<std::string>> Strays(Catalogue& catalogue, const LayerStore& store) {
  std::vector<std::string> strays;
  const Layout& layout = store.layout();
  for (const std::string& name : CRISP_TRY(os::ListDir(layout.Staging())))
    if (!IsBusy(store, name)) strays.push_back(layout.Staging() + "/" + name);
  for (const std::string& name : CRISP_TRY(os::ListDir(layout.Layers()))) {
    if (IsBusy(store, name)) continue;
    const Result<digest::Digest> chain = digest::Digest::Parse("sha256:" + name);
    if (!chain.ok() || !CRISP_TRY(catalogue.HasLayer(*chain)))
      strays.push_back(layout.Layers() + "/" + name);
  }
  const Result<std::vector<std::string>> flats = os::ListDir(layout.Flats());
  if (!flats.ok() && flats.code() != Code::kNotFound) return flats.status();
  for (const std::string& name : flats.ok() ? *flats : std::vector<std::string>()) {
    const std::string hex = name.substr(0, name.find('.'));
    if (store.TryLockFlat(hex).code() == Code::kUnavailable) continue;
    const Result<digest::Digest> top = digest::Digest::Parse("sha256:" + name);
    if (!top.ok() || !CRISP_TRY(catalogue.IsTop(*top))) strays.push_back(layout.Flat(name));
  }
  for (const std::string& name : CRISP_TRY(os::ListDir(layout.Snapshots())))
    if (!CRISP_TRY(catalogue.FindSnapshot(OwnerId(name)))) strays.push_back(layout.Snapshot(name));
  return strays;
}

Status EmptyTrash(const LayerStore& store) {
  for (const std::string& path : CRISP_TRY(store.Trash())) CRISP_TRY(store.DeleteSome(path, kAll));
  return Status::Ok();
}

Status Repair(Catalogue& catalogue, const LayerStore& store,
              const std::vector<digest::Digest>& damaged, const std::vector<std::string>& strays,
              CheckReport& report) {
  for (const digest::Digest& chain : damaged) {
    const Result<std::vector<std::string>> gone = catalogue.ForgetLayer(chain);
    if (gone.code() == Code::kFailedPrecondition) continue;  // stays a problem
    if (!gone.ok()) return gone.status();
    CRISP_TRY(store.Discard(store.layout().Layer(chain.hex())));
    report.repaired.push_back(fmt::format("layer {} forgotten", chain.str()));
    for (const std::string& image : *gone)
      report.repaired.push_back(fmt::format("image {} forgotten: pull it again", image));
  }
  for (const std::string& path : strays) {
    CRISP_TRY(store.Discard(path));
    report.repaired.push_back(fmt::format("{} deleted", path));
  }
  return EmptyTrash(store);
}

}  // namespace

Result<CheckReport> CheckStore(const CallContext& cc, Catalogue& catalogue, LayerStore& store,
                               Clock& clock, const CheckOptions& options) {
  CheckReport report;
  CRISP_TRY(catalogue.CheckIntegrity());
  const Catalogue::Totals totals = CRISP_TRY(catalogue.Sum());
  report.images = totals.images;
  report.layers = totals.layers;
  const auto pace = [&cc](std::uint64_t /*bytes*/) { return cc.Check(); };
  std::vector<digest::Digest> damaged;
  for (const CatalogueLayer& layer : CRISP_TRY(catalogue.AllLayers())) {
    const std::string damage =
        CRISP_TRY(Damage(cc, catalogue, store, layer, clock.Wall(), options.contents, pace));
    // An imaged that runs may have collected it meanwhile.
    if (damage.empty() || !CRISP_TRY(catalogue.HasLayer(layer.chain))) continue;
    damaged.push_back(layer.chain);
    report.problems.push_back(damage);
  }
  const std::vector<std::string> strays = CRISP_TRY(Strays(catalogue, store));
  for (const std::string& path : strays)
    report.problems.push_back(fmt::format("{} belongs to nothing", path));
  if (options.repair) CRISP_TRY(Repair(catalogue, store, damaged, strays, report));
  return report;
}

Status WipeStore(const CallContext& cc, Catalogue& catalogue, LayerStore& store) {
  const std::vector<SnapshotRecord> snapshots = CRISP_TRY(catalogue.ListSnapshots());
  if (!snapshots.empty())
    return FailedPrecondition("{} containers have snapshots here: remove them first",
                              snapshots.size());
  CRISP_TRY(cc.Check());
  for (const ImageRecord& image : CRISP_TRY(catalogue.List()))
    CRISP_TRY(catalogue.RemoveImage(image.id));
  std::vector<digest::Digest> chains;
  for (const CatalogueLayer& layer : CRISP_TRY(catalogue.AllLayers()))
    chains.push_back(layer.chain);
  CRISP_TRY(catalogue.DropLayers(chains));
  for (const std::string& path : CRISP_TRY(Strays(catalogue, store)))
    CRISP_TRY(store.Discard(path));
  return EmptyTrash(store);
}

Result<std::string> VerifyOne(const CallContext& cc, Catalogue& catalogue, LayerStore& store,
                              Clock& clock, std::uint64_t bytes_per_second) {
  const std::vector<CatalogueLayer> layers = CRISP_TRY(catalogue.AllLayers());
  const auto oldest = std::min_element(
      layers.begin(), layers.end(),
      [](const CatalogueLayer& a, const CatalogueLayer& b) { return a.checked < b.checked; });
  if (oldest == layers.end()) return std::string();
  // Nobody takes it away meanwhile; whoever works on it comes first.
  const Result<ChainLock> lock = store.TryShare(oldest->chain);
  if (!lock.ok()) return std::string();
  std::uint64_t owed = 0;
  const auto pace = [&](std::uint64_t bytes) -> Status {
    owed += bytes;
    constexpr std::uint64_t kStep = std::uint64_t{1} << 20U;
    if (owed < kStep) return cc.Check();
    const auto pause = std::chrono::nanoseconds(std::chrono::seconds(1)) *
                       static_cast<std::int64_t>(owed) /
                       static_cast<std::int64_t>(bytes_per_second);
    owed = 0;
    return work::Pause(cc, pause);
  };
  Result<std::string> damage = Damage(cc, catalogue, store, *oldest, clock.Wall(), true, pace);
  // Damage is told of once a round, not at each look; and a layer that takes longer than there is
  // time must not keep the others from their turn.
  const bool others_next =
      damage.ok() ? !damage->empty() : damage.code() == Code::kDeadlineExceeded;
  if (others_next) CRISP_TRY(catalogue.SetChecked(oldest->chain, oldest->tree, clock.Wall()));
  return damage;
}

}  // namespace crisp::imaged
