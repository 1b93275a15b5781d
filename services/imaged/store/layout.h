#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "libs/settings/settings.h"

namespace crisp::imaged {

/// imaged's state on disk, shared by all its instances:
///
///   <state_root>/imaged/, or imaged.image_root where that is set
///     catalogue.db                      images, names, layers, snapshots (SQLite, WAL)
///     in-use                            locked, together, by each imaged that runs
///     locks                             byte-range locks of chain ids, one file for all
///     layers/<chain id>/diff            a finished layer: what overlayfs gets as lowerdir
///     layers/<chain id>/layer.erofs     or as one file, when it was pulled with imaged.driver
///                                       erofs
///     layers/<chain id>/files           of a zstd:chunked layer: which contents lie where in it
///     staging/<chain id>.<random>/diff  a layer on its way; renamed into layers/ when its digests
///                                       match
///     snapshots/<owner>/{upper,work}    a container's writable part
///     snapshots/<owner>/rootfs          or all of its root file system: drivers vfs and btrfs
///     flat/<chain id>                   btrfs: what an image of this topmost layer shows, a
///                                       subvolume that rootfs is a snapshot of
///     empty/                            the lowerdir of an image without layers
///     trash/<random>                    renamed here, deleted slowly later
class Layout {
 public:
  explicit Layout(const std::string& state_root)
      : root_(state_root + "/imaged"), snapshots_root_(root_) {}
  explicit Layout(const settings::Settings& settings) : Layout(settings.state_root) {
    if (!settings.imaged.image_root.empty()) root_ = settings.imaged.image_root;
  }

  const std::string& root() const { return root_; }
  std::string Catalogue() const { return root_ + "/catalogue.db"; }
  std::string Locks() const { return root_ + "/locks"; }
  std::string InUse() const { return root_ + "/in-use"; }
  std::string Layers() const { return root_ + "/layers"; }
  std::string Layer(std::string_view chain_hex) const {
    return Layers() + "/" + std::string(chain_hex);
  }
  std::string Diff(std::string_view chain_hex) const { return Layer(chain_hex).append(kDiff); }
  std::string Image(std::string_view chain_hex) const { return Layer(chain_hex).append(kImage); }
  std::string Files(std::string_view chain_hex) const { return Layer(chain_hex).append(kFiles); }
  // In a layer's directory, staged or not.
  static constexpr std::string_view kDiff = "/diff";
  static constexpr std::string_view kImage = "/layer.erofs";
  static constexpr std::string_view kFiles = "/files";
  std::string Staging() const { return root_ + "/staging"; }
  /// Always below state_root: containers' files may have a file system of their own.
  const std::string& snapshots_root() const { return snapshots_root_; }
  std::string Snapshots() const { return snapshots_root_ + "/snapshots"; }
  /// Where containers' files go that are thrown away, on their own file system.
  std::string SnapshotsTrash() const { return snapshots_root_ + "/trash"; }
  std::string Snapshot(std::string_view owner) const {
    return Snapshots() + "/" + std::string(owner);
  }
  /// A subvolume for each image that was used with the driver btrfs, beside the snapshots of it.
  std::string Flats() const { return snapshots_root_ + "/flat"; }
  std::string Flat(std::string_view top_chain_hex) const {
    return Flats() + "/" + std::string(top_chain_hex);
  }
  std::string Empty() const { return root_ + "/empty"; }
  std::string Trash() const { return root_ + "/trash"; }

 private:
  std::string root_;
  std::string snapshots_root_;
};

}  // namespace crisp::imaged
