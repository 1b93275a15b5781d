#include "services/imaged/core/archive_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "libs/archive/decompress.h"
#include "libs/archive/tar.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/os/files.h"

namespace crisp::imaged {
namespace {

constexpr int kMaxLinks = 8;
constexpr std::string_view kSpool = "the spooled archive";  // for errors
constexpr std::string_view kRefName = "org.opencontainers.image.ref.name";
constexpr std::string_view kContainerdName = "io.containerd.image.name";
constexpr std::string_view kDockerManifest = "application/vnd.docker.distribution.manifest.v2+json";

/// "./a//b/../c" → "a/c"; "" for what leads out of the archive.
std::string CleanName(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    const std::string_view part = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(path.size(), part.size() + 1));
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      parts.push_back(part);
    } else if (parts.empty()) {
      return {};
    } else {
      parts.pop_back();
    }
  }
  return fmt::format("{}", fmt::join(parts, "/"));
}

/// An annotation that is a whole name, not only a tag.
bool IsName(const std::string& text) { return text.find_first_of("/:") != std::string::npos; }

}  // namespace

class ArchiveSource::Reader final : public BlobReader {
 public:
  Reader(int fd, const Member& member, std::uint64_t offset)
      : fd_(fd), member_(member), at_(std::min(offset, member.size)) {}
  Result<std::size_t> Read(const CallContext& cc, std::span<char> into) override {
    CRISP_TRY(cc.Check());
    const std::size_t count =
        static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), member_.size - at_));
    CRISP_TRY(os::ReadAt(fd_, member_.offset + at_, into.first(count), kSpool));
    at_ += count;
    return count;
  }
  std::optional<std::uint64_t> total() const override { return member_.size; }

 private:
  const int fd_;  // the source's, which outlives its readers
  const Member member_;
  std::uint64_t at_;
};

Result<std::shared_ptr<ArchiveSource>> ArchiveSource::Read(archive::ChunkSource& bytes,
                                                           const std::string& spool_dir,
                                                           const ArchiveLimits& limits,
                                                           std::shared_ptr<ByteCount> spooled) {
  os::UniqueFd spool =
      CRISP_TRY(os::Open(spool_dir, O_TMPFILE | O_RDWR, 0600).While("room for the archive"));
  const std::shared_ptr<ArchiveSource> source(
      new ArchiveSource(std::move(spool), std::move(spooled)));
  archive::PeekSource peek(bytes);
  const std::string_view head = CRISP_TRY(peek.Peek());
  if (head.empty()) return InvalidArgument("the archive is empty");
  const archive::Compression kind = CRISP_TRY(archive::DetectCompression(head));
  const auto decompressor = archive::MakeDecompressor(kind, peek);
  archive::PlainSource plain(*decompressor);
  CRISP_TRY(source->Spool(plain, limits));
  if (source->files_.contains("index.json") && source->files_.contains("oci-layout")) {
    CRISP_TRY(source->ReadLayout(limits.max_manifest_size));
  } else if (source->files_.contains("manifest.json")) {
    CRISP_TRY(source->ReadDocker(limits.max_manifest_size));
  } else {
    return InvalidArgument(
        "this is no image archive: it has neither oci-layout and index.json nor manifest.json");
  }
  if (source->images_.empty()) return InvalidArgument("the archive has no image");
  return source;
}

Status ArchiveSource::Spool(archive::ChunkSource& tar_bytes, const ArchiveLimits& limits) {
  archive::TarReader tar(tar_bytes);
  archive::TarEntry entry;
  while (CRISP_TRY(tar.Next(entry))) {
    const std::string name = CleanName(entry.path);
    if (name.empty()) continue;
    if (files_.size() + links_.size() >= limits.max_files)
      return ResourceExhausted("the archive has more than {} files", limits.max_files);
    if (entry.type == archive::EntryType::kSymlink) {
      const std::size_t slash = name.rfind('/');
      const std::string directory = slash == name.npos ? "" : name.substr(0, slash + 1);
      links_[name] = CleanName(directory + entry.link);
    } else if (entry.type == archive::EntryType::kHardLink) {
      links_[name] = CleanName(entry.link);
    } else if (entry.type == archive::EntryType::kFile) {
      if (entry.size > limits.max_size.count() - std::min(end_, limits.max_size.count()))
        return ResourceExhausted("the archive's files have more than {} bytes",
                                 limits.max_size.count());
      archive::EntrySource contents(tar);
      const Member member = CRISP_TRY(SpoolFile(contents, entry.size).While("{:.256}", name));
      files_[name] = member;
      blobs_[member.digest] = member;
    }
  }
  return tar.Drain();
}

Result<ArchiveSource::Member> ArchiveSource::SpoolFile(archive::ChunkSource& contents,
                                                       std::uint64_t left) {
  Member member;
  member.offset = end_;
  digest::Sha256 sum;
  while (left > 0) {
    const std::string_view piece = CRISP_TRY(contents.Next());
    if (piece.empty()) return DataLoss("the archive is cut short");
    sum.Update(piece);
    CRISP_TRY(os::WriteAll(spool_.get(), piece, "the spooled archive"));
    left -= piece.size();
    end_ += piece.size();
    *spooled_ += piece.size();
  }
  member.size = end_ - member.offset;
  member.digest = sum.Finish();
  return member;
}

Result<const ArchiveSource::Member*> ArchiveSource::Find(const std::string& name) const {
  std::string at = CleanName(name);
  for (int links = 0; links <= kMaxLinks; ++links) {
    if (const auto file = files_.find(at); file != files_.end()) return &file->second;
    const auto link = links_.find(at);
    if (link == links_.end()) break;
    at = link->second;
  }
  return InvalidArgument("the archive has no file {:.256}", name);
}

Result<std::string> ArchiveSource::Text(const Member& member, Bytes limit) const {
  if (member.size > limit.count())
    return ResourceExhausted("{} has {} bytes, more than the {} allowed", member.digest.str(),
                             member.size, limit.count());
  std::string text(static_cast<std::size_t>(member.size), '\0');
  CRISP_TRY(os::ReadAt(spool_.get(), member.offset, text, kSpool));
  return text;
}

Status ArchiveSource::ReadLayout(Bytes limit) {
  const std::string text = CRISP_TRY(Text(files_.at("index.json"), limit));
  const nlohmann::json index = CRISP_TRY(json::ParseFile(text, "index.json"));
  const nlohmann::json manifests =
      CRISP_TRY(json::GetArray(index, "manifests").While("index.json"));
  for (const nlohmann::json& each : manifests) {
    ArchivedImage image;
    const std::string digest = CRISP_TRY(json::GetString(each, "digest").While("index.json"));
    image.manifest = CRISP_TRY(digest::Digest::Parse(digest).While("index.json"));
    const nlohmann::json annotations =
        CRISP_TRY(json::OptObject(each, "annotations").While("index.json"));
    for (const std::string_view key : {kContainerdName, kRefName}) {
      const auto name = annotations.find(std::string(key));
      if (!image.names.empty() || name == annotations.end() || !name->is_string()) continue;
      if (IsName(name->get<std::string>())) image.names.push_back(name->get<std::string>());
    }
    // An image with several names has an entry for each.
    const auto same = std::find_if(
        images_.begin(), images_.end(),
        [&image](const ArchivedImage& other) { return other.manifest == image.manifest; });
    if (same == images_.end()) {
      images_.push_back(std::move(image));
    } else {
      same->names.insert(same->names.end(), image.names.begin(), image.names.end());
    }
  }
  return Status::Ok();
}

/// [{"Config": file, "RepoTags": [names], "Layers": [files]}]
Status ArchiveSource::ReadDocker(Bytes limit) {
  const std::string text = CRISP_TRY(Text(files_.at("manifest.json"), limit));
  const nlohmann::json list = CRISP_TRY(json::ParseFile(text, "manifest.json"));
  if (!list.is_array()) return InvalidArgument("manifest.json: an array is expected");
  const auto descriptor = [](const Member& member) {
    return nlohmann::json{{"digest", member.digest.str()}, {"size", member.size}};
  };
  for (const nlohmann::json& each : list) {
    const std::string config = CRISP_TRY(json::GetString(each, "Config").While("manifest.json"));
    const std::vector<std::string> layers =
        CRISP_TRY(json::OptStrings(each, "Layers").While("manifest.json"));
    nlohmann::json manifest = {{"schemaVersion", 2},
                               {"mediaType", kDockerManifest},
                               {"config", descriptor(*CRISP_TRY(Find(config)))},
                               {"layers", nlohmann::json::array()}};
    for (const std::string& layer : layers)
      manifest["layers"].push_back(descriptor(*CRISP_TRY(Find(layer))));
    ArchivedImage image;
    image.names = CRISP_TRY(json::OptStrings(each, "RepoTags").While("manifest.json"));
    std::string made = json::Dump(manifest);
    image.manifest = digest::Sha256Digest(made);
    made_[image.manifest] = std::move(made);
    images_.push_back(std::move(image));
  }
  return Status::Ok();
}

Result<FetchedManifest> ArchiveSource::Manifest(const CallContext& cc,
                                                const std::string& tag_or_digest, Bytes limit) {
  if (!tag_or_digest.starts_with("sha256:")) return NotFound("an archive has no tags");
  FetchedManifest manifest;
  manifest.digest = CRISP_TRY(digest::Digest::Parse(tag_or_digest));
  const auto made = made_.find(manifest.digest);
  manifest.body = made != made_.end() ? made->second : CRISP_TRY(Blob(cc, manifest.digest, limit));
  return manifest;
}

Result<std::string> ArchiveSource::Blob(const CallContext& cc, const digest::Digest& digest,
                                        Bytes limit) {
  CRISP_TRY(cc.Check());
  const auto blob = blobs_.find(digest);
  if (blob == blobs_.end()) return NotFound("the archive has no blob {}", digest.str());
  return Text(blob->second, limit);
}

Result<std::unique_ptr<BlobReader>> ArchiveSource::OpenBlob(const CallContext& cc,
                                                            const digest::Digest& digest,
                                                            BlobRange range) {
  CRISP_TRY(cc.Check());
  const auto blob = blobs_.find(digest);
  if (blob == blobs_.end()) return NotFound("the archive has no blob {}", digest.str());
  return std::unique_ptr<BlobReader>(
      std::make_unique<Reader>(spool_.get(), blob->second, range.from));
}

}  // namespace crisp::imaged
