#include "services/imaged/core/reuse.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/work/operations.h"
#include "services/imaged/core/chunked.h"

namespace crisp::imaged {
namespace {

// A smaller layer is here before the questions are answered.
constexpr std::uint64_t kMinBlob = std::uint64_t{1} << 20U;
// What lies between two parts that are wanted is fetched, too, where it is smaller: the time of a
// request would bring more than that.
constexpr std::uint64_t kGap = std::uint64_t{256} << 10U;
constexpr std::size_t kMaxParts = 256;
constexpr std::size_t kMaxLayers = 64;  // layers that files are taken from: two descriptors each
// So much of the blob must be saved, as a fraction.
constexpr std::uint64_t kWorth = 4;
constexpr std::uint32_t kNowhere = ~std::uint32_t{0};

Result<std::string> FetchPart(const CallContext& cc, const BlobRange& part, std::uint64_t blob_size,
                              const OpenBlob& open, const LayerLimits& limits) {
  const Slots::Hold connection =
      CRISP_TRY(limits.connections.Take(cc, "wait for a connection among the downloads"));
  const std::unique_ptr<BlobReader> reader = CRISP_TRY(open(cc, part));
  if (!reader->is_range()) return Unimplemented("the source has no ranges");
  if (reader->total().value_or(blob_size) != blob_size)
    return DataLoss("the blob has {} bytes, its manifest says {}", *reader->total(), blob_size);
  std::string text(part.size, '\0');
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t count = CRISP_TRY(reader->Read(cc, std::span(text).subspan(at)));
    if (count == 0) return Unavailable("the table of a layer ends early");
    limits.on_fetched(count);
    at += count;
  }
  return text;
}

/// The layers that have an index.
Result<std::vector<digest::Digest>> Indexed(const Layout& layout) {
  std::vector<digest::Digest> chains;
  for (const std::string& name : CRISP_TRY(os::ListDir(layout.Layers()))) {
    const Result<digest::Digest> chain = digest::Digest::Parse("sha256:" + name);
    if (chain.ok() && os::Exists(layout.Files(name))) chains.push_back(*chain);
  }
  return chains;
}

Status ReadFiles(const Descriptor& blob, ReusePlan& plan) {
  if (digest::Sha256Digest(plan.toc) != blob.chunked->toc_digest)
    return DataLoss("the table of a layer is not the one that its manifest promises");
  const auto add = [&](const TocFile& file) -> Status {
    if (file.offset >= file.end || file.end > blob.size)
      return DataLoss("the table of a layer has a file outside the blob");
    if (!plan.files.empty() && file.offset < plan.files.back().end)
      return DataLoss("the table of a layer has files out of order");
    plan.files.push_back(
        {.digest = file.digest.Bytes(), .size = file.size, .offset = file.offset, .end = file.end});
    return Status::Ok();
  };
  plan.tar_split = CRISP_TRY(ReadToc(plan.toc, add));
  return Status::Ok();
}

/// True when it is there as it should be, from the outside. Nothing of a layer is opened that is no
/// regular file.
bool IsFile(const os::Beneath& root, const std::string& path, std::uint64_t size) {
  const Result<os::UniqueFd> fd = root.OpenFile(path, O_PATH | O_NOFOLLOW);
  struct stat info {};
  return fd.ok() && ::fstat(fd->get(), &info) == 0 && S_ISREG(info.st_mode) &&
         static_cast<std::uint64_t>(info.st_size) == size;
}

/// Which of the contents that are wanted this layer has is added to `where`.
void LookIn(const digest::Digest& chain, const LayerStore& store,
            std::span<const WantedFile> wanted, std::vector<std::uint32_t>& where,
            ReusePlan& plan) {
  // One that is being made or deleted serves nobody; else it stays until the lock is given back.
  Result<ChainLock> lock = store.TryShare(chain);
  Result<os::Beneath> root = os::Beneath::Open(store.layout().Diff(chain.hex()));
  if (!lock.ok() || !root.ok()) return;
  const std::size_t before = plan.locals.size();
  const auto found = [&](std::size_t number, std::string path) {
    if (where[number] != kNowhere || !IsFile(*root, path, wanted[number].size)) return;
    where[number] = static_cast<std::uint32_t>(plan.locals.size());
    plan.locals.push_back(
        {.layer = static_cast<std::uint32_t>(plan.layers.size()), .path = std::move(path)});
  };
  std::string index = store.layout().Files(chain.hex());
  log::IfError("look for files of a layer", LookUpFiles(index, wanted, found));
  if (plan.locals.size() == before) return;
  plan.layers.push_back({*std::move(lock), *std::move(root), std::move(index)});
}

void FindLocals(const std::vector<digest::Digest>& chains, const LayerStore& store,
                ReusePlan& plan) {
  std::vector<WantedFile> wanted;
  wanted.reserve(plan.files.size());
  for (const ReusePlan::File& file : plan.files) wanted.push_back({file.digest, file.size});
  std::sort(wanted.begin(), wanted.end());
  wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
  std::vector<std::uint32_t> where(wanted.size(), kNowhere);
  for (const digest::Digest& chain : chains) {
    if (plan.layers.size() == kMaxLayers || plan.locals.size() == wanted.size()) break;
    LookIn(chain, store, wanted, where, plan);
  }
  for (ReusePlan::File& file : plan.files) {
    const auto found =
        std::lower_bound(wanted.begin(), wanted.end(), WantedFile{file.digest, file.size});
    const std::uint32_t local = where[static_cast<std::size_t>(found - wanted.begin())];
    if (local != kNowhere) file.local = local;
  }
}

/// The parts with the frames of all files that are not here; neighbours that lie closer than `gap`
/// are one.
std::vector<BlobRange> PartsOf(const std::vector<ReusePlan::File>& files, std::uint64_t gap) {
  std::vector<BlobRange> parts;
  for (const ReusePlan::File& file : files) {
    if (file.local) continue;
    if (!parts.empty() && file.offset - (parts.back().from + parts.back().size) < gap) {
      parts.back().size = file.end - parts.back().from;
    } else {
      parts.push_back({.from = file.offset, .size = file.end - file.offset});
    }
  }
  return parts;
}

void ChooseParts(const BlobRange& tar_split, ReusePlan& plan) {
  std::uint64_t gap = kGap;
  std::vector<BlobRange> parts = PartsOf(plan.files, gap);
  while (parts.size() > kMaxParts) parts = PartsOf(plan.files, gap *= 2);
  plan.parts.push_back(tar_split);
  plan.parts.insert(plan.parts.end(), parts.begin(), parts.end());
  std::uint64_t before = tar_split.size;  // of what is fetched, up to the part
  std::size_t part = 0;
  for (ReusePlan::File& file : plan.files) {
    if (file.local) continue;
    while (file.offset >= parts[part].from + parts[part].size) before += parts[part++].size;
    file.fetched_at = before + (file.offset - parts[part].from);
  }
  for (const BlobRange& each : plan.parts) plan.fetch_size += each.size;
}

Result<std::optional<ReusePlan>> Plan(const CallContext& cc, const Descriptor& blob,
                                      const OpenBlob& open, const LayerStore& store,
                                      const LayerLimits& limits) {
  const std::vector<digest::Digest> chains = CRISP_TRY(Indexed(store.layout()));
  if (chains.empty()) return std::optional<ReusePlan>();
  ReusePlan plan;
  plan.toc = CRISP_TRY(FetchPart(cc, blob.chunked->toc, blob.size, open, limits));
  CRISP_TRY(ReadFiles(blob, plan));
  FindLocals(chains, store, plan);
  ChooseParts(blob.chunked->tar_split, plan);
  if (plan.fetch_size > blob.size - blob.size / kWorth) return std::optional<ReusePlan>();
  return std::optional<ReusePlan>(std::move(plan));
}

}  // namespace

Result<std::optional<ReusePlan>> PlanReuse(const CallContext& cc, const Descriptor& blob,
                                           const OpenBlob& open, const LayerStore& store,
                                           const LayerLimits& limits) {
  if (!blob.chunked || blob.chunked->tar_split.size == 0 || blob.size < kMinBlob)
    return std::optional<ReusePlan>();
  const work::Stage stage(cc, "look which files of the layer are here");
  Result<std::optional<ReusePlan>> plan = Plan(cc, blob, open, store, limits);
  if (plan.ok()) return plan;
  CRISP_TRY(cc.Check());
  log::Info("a layer comes whole: its table of files is of no use",
            {{"request", cc.request_id()}, {"layer", blob.digest.str()}, {"why", plan.status()}});
  return std::optional<ReusePlan>();
}

Status IndexFiles(std::string_view toc, const std::string& directory) {
  FileIndexWriter index;
  CRISP_TRY(ReadToc(toc, [&index](const TocFile& file) {
    index.Add(file.digest, file.size, file.name);
    return Status::Ok();
  }));
  const std::string path = directory + std::string(Layout::kFiles);
  Status written = index.Write(path);
  if (!written.ok()) log::IfError("remove half an index", os::RemoveFile(path));
  return written;
}

}  // namespace crisp::imaged
