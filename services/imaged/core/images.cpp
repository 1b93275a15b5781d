#include "services/imaged/core/images.h"

#include <algorithm>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "services/imaged/core/image_config.h"

namespace crisp::imaged {

namespace {

/// Exact, "registry/pause*", "*pause*": a star stands for any characters, wherever it is.
bool Matches(std::string_view pattern, std::string_view name) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == name;
  if (name.substr(0, star) != pattern.substr(0, star)) return false;
  name.remove_prefix(star);
  pattern.remove_prefix(star + 1);
  while (true) {
    const std::size_t next = pattern.find('*');
    if (next == std::string_view::npos) return name.ends_with(pattern);
    // The earliest place is the best: what follows has most room.
    const std::size_t at = name.find(pattern.substr(0, next));
    if (at == std::string_view::npos) return false;
    name.remove_prefix(at + next);
    pattern.remove_prefix(next + 1);
  }
}

}  // namespace

Images::Images(Catalogue& catalogue, const Layout& layout, std::vector<std::string> pinned,
               Clock& clock, DiskUsage::Later later)
    : catalogue_(catalogue),
      layout_(layout),
      clock_(clock),
      disk_(layout, clock, std::move(later)) {
  for (std::string& name : pinned) {
    const Result<ref::ImageRef> parsed = ref::Parse(name);
    // "busybox" pins docker.io/library/busybox:latest; patterns and ids are taken as they are.
    pinned_.push_back(!parsed.ok()             ? ref::LowerDomain(name)
                      : parsed->digest.empty() ? parsed->Tagged()
                                               : parsed->Digested());
  }
}

bool Images::IsPinned(const ImageRecord& record) const {
  return std::any_of(pinned_.begin(), pinned_.end(), [&](const std::string& pattern) {
    const auto fits = [&](const std::string& name) { return Matches(pattern, name); };
    return fits(record.id) || std::any_of(record.tags.begin(), record.tags.end(), fits) ||
           std::any_of(record.digests.begin(), record.digests.end(), fits);
  });
}

void Images::Fill(const ImageRecord& record, runtime::v1::Image& image) const {
  image.set_id(record.id);
  for (const std::string& tag : record.tags) image.add_repo_tags(tag);
  for (const std::string& digest : record.digests) image.add_repo_digests(digest);
  image.set_size(record.size);
  if (record.uid) image.mutable_uid()->set_value(*record.uid);
  image.set_username(record.username);
  image.set_pinned(IsPinned(record));
  image.mutable_spec()->set_image(record.id);
  image.mutable_spec()->mutable_annotations()->insert(record.annotations.begin(),
                                                      record.annotations.end());
}

Status Images::List(const runtime::v1::ListImagesRequest& request,
                    runtime::v1::ListImagesResponse& response) {
  const std::string& wanted = request.filter().image().image();
  if (wanted.empty()) {
    for (const ImageRecord& record : CRISP_TRY(catalogue_.List()))
      Fill(record, *response.add_images());
    return Status::Ok();
  }
  const Result<std::optional<std::string>> id = catalogue_.Resolve(wanted);
  if (!id.ok() && id.code() == Code::kInvalidArgument) return Status::Ok();
  if (!id.ok()) return id.status();
  if (!*id) return Status::Ok();
  const std::optional<ImageRecord> record = CRISP_TRY(catalogue_.Find(**id));
  if (record) Fill(*record, *response.add_images());
  return Status::Ok();
}

Status Images::ImageStatus(const runtime::v1::ImageStatusRequest& request,
                           runtime::v1::ImageStatusResponse& response) {
  if (request.image().image().empty()) return InvalidArgument("no image is named");
  const std::optional<std::string> id = CRISP_TRY(catalogue_.Resolve(request.image().image()));
  if (!id) return Status::Ok();
  const std::optional<ImageRecord> record = CRISP_TRY(catalogue_.Find(*id));
  if (!record) return Status::Ok();
  Fill(*record, *response.mutable_image());
  if (!request.verbose()) return Status::Ok();
  const std::string config = CRISP_TRY(catalogue_.Config(*id));
  const std::vector<digest::Digest> chain = CRISP_TRY(catalogue_.Layers(*id));
  nlohmann::json info;
  info["imageSpec"] = CRISP_TRY(json::Parse(config, {.max_bytes = config.size() + 1}));
  info["chainID"] = chain.empty() ? "" : chain.back().str();
  (*response.mutable_info())["info"] = json::Dump(info);
  return Status::Ok();
}

Result<std::vector<digest::Digest>> Images::Remove(const std::string& image) {
  if (image.empty()) return InvalidArgument("no image is named");
  const std::optional<std::string> id = CRISP_TRY(catalogue_.Resolve(image));
  if (!id) return std::vector<digest::Digest>();
  std::vector<digest::Digest> layers = CRISP_TRY(catalogue_.Layers(*id));
  if (CRISP_TRY(catalogue_.RemoveImage(*id)))
    log::Info("image removed", {{"image", image}, {"id", *id}});
  return layers;
}

Status Images::FsInfo(runtime::v1::ImageFsInfoResponse& response) {
  const Catalogue::Totals totals = CRISP_TRY(catalogue_.Sum());
  const DiskUsage::Numbers disk = disk_.Get();
  const auto entry = [this](const std::string& root, std::uint64_t bytes, std::uint64_t inodes) {
    runtime::v1::FilesystemUsage usage;
    usage.set_timestamp(clock_.Wall().time_since_epoch().count());
    usage.mutable_fs_id()->set_mountpoint(root);
    usage.mutable_used_bytes()->set_value(bytes);
    usage.mutable_inodes_used()->set_value(inodes);
    return usage;
  };
  *response.add_image_filesystems() =
      entry(layout_.root(), totals.bytes + disk.temporary.bytes + *spooled_,
            totals.inodes + disk.temporary.inodes);
  *response.add_container_filesystems() =
      layout_.root() == layout_.snapshots_root()
          ? response.image_filesystems(0)
          : entry(layout_.snapshots_root(), disk.containers.bytes, disk.containers.inodes);
  return Status::Ok();
}

}  // namespace crisp::imaged
