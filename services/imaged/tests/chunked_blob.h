#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <catch2/catch.hpp>

#include "libs/archive/tests/compress.h"
#include "libs/base/text.h"
#include "libs/digest/digest.h"
#include "services/imaged/tests/fake_registry.h"

// Layers in the form of zstd:chunked, honest or not.
namespace crisp::imaged::testing {

/// What is changed of a blob while it is made.
struct ChunkedLies {
  std::function<void(nlohmann::json& toc)> toc;
  std::function<void(std::string& tar_split)> tar_split;  // one JSON document a line
  std::size_t chunk = std::size_t{100} << 10U;            // larger files are in several frames
};

struct ChunkedBlob {
  std::string bytes;
  nlohmann::json annotations;
};

class ChunkedWriter {
 public:
  explicit ChunkedWriter(ChunkedLies lies = {}) : lies_(std::move(lies)) {}

  ChunkedBlob Write(std::string_view tar) {
    while (!tar.empty() && tar.front() != '\0') Entry(tar);
    Segment(tar);
    Flush();
    if (lies_.tar_split) lies_.tar_split(split_);
    const std::string split = archive::testing::ZstdOf(split_);
    toc_["version"] = 1;
    toc_["tarSplitDigest"] = "sha256:" + digest::Sha256Hex(split);
    if (lies_.toc) lies_.toc(toc_);
    const std::string text = toc_.dump();
    const std::string toc = archive::testing::ZstdOf(text);
    ChunkedBlob blob;
    const std::string key = "io.github.containers.zstd-chunked.";
    blob.annotations[key + "manifest-checksum"] = "sha256:" + digest::Sha256Hex(toc);
    blob.annotations[key + "manifest-position"] =
        fmt::format("{}:{}:{}:1", Skippable(toc), toc.size(), text.size());
    blob.annotations[key + "tarsplit-position"] =
        fmt::format("{}:{}:{}", Skippable(split), split.size(), split_.size());
    Skippable(std::string(64, 'f'));
    blob.bytes = std::move(blob_);
    return blob;
  }

 private:
  static constexpr std::size_t kBlock = 512;
  static std::size_t Padded(std::size_t size) { return (size + kBlock - 1) / kBlock * kBlock; }

  /// One entry of the tar with all headers before it.
  void Entry(std::string_view& tar) {
    std::size_t head = 0;
    std::string name;
    while (true) {
      const std::string_view block = tar.substr(head, kBlock);
      const std::size_t size = std::stoul(std::string(block.substr(124, 12)), nullptr, 8);
      const std::string_view contents = tar.substr(head + kBlock, size);
      const char type = block[156];
      head += kBlock;
      if (type == 'x' || type == 'L' || type == 'K') {
        if (type == 'L') name = contents.substr(0, contents.find('\0'));
        if (const auto at = contents.find(" path="); type == 'x' && at != contents.npos)
          name = contents.substr(at + 6, contents.find('\n', at) - at - 6);
        head += Padded(size);
        continue;
      }
      if (name.empty()) name = block.substr(0, std::min<std::size_t>(100, block.find('\0')));
      Segment(tar.substr(0, head));
      tar.remove_prefix(head);
      static const std::map<char, std::string> kTypes = {
          {'0', "reg"},   {'1', "hardlink"}, {'2', "symlink"}, {'3', "char"},
          {'4', "block"}, {'5', "dir"},      {'6', "fifo"}};
      File(name, kTypes.at(type), contents);
      tar.remove_prefix(size);
      const std::size_t padding = Padded(size) - size;
      if (padding > 0) Segment(tar.substr(0, padding));
      tar.remove_prefix(padding);
      return;
    }
  }
  void Segment(std::string_view bytes) {
    pending_ += bytes;
    Line({{"type", 2}, {"payload", Base64(bytes)}});
  }
  void File(const std::string& name, const std::string& type, std::string_view contents) {
    nlohmann::json entry = {{"type", type}, {"name", name}, {"mode", 0644}};
    if (contents.empty()) {
      Line({{"type", 1}, {"name", name}, {"payload", nullptr}});
      toc_["entries"].push_back(std::move(entry));
      return;
    }
    Line({{"type", 1}, {"name", name}, {"size", contents.size()}, {"payload", "AAAAAAAAAAA="}});
    Flush();
    entry["size"] = contents.size();
    entry["digest"] = "sha256:" + digest::Sha256Hex(contents);
    entry["offset"] = blob_.size();
    std::vector<nlohmann::json> chunks;
    for (std::size_t at = 0; at < contents.size(); at += lies_.chunk) {
      const std::string_view chunk = contents.substr(at, lies_.chunk);
      nlohmann::json each = {{"type", "chunk"}, {"name", name}};
      each["offset"] = blob_.size();
      each["chunkOffset"] = at;
      each["chunkSize"] = chunk.size();
      each["chunkDigest"] = "sha256:" + digest::Sha256Hex(chunk);
      blob_ += archive::testing::ZstdOf(chunk);
      if (at > 0) chunks.push_back(std::move(each));
    }
    entry["endOffset"] = blob_.size();
    toc_["entries"].push_back(std::move(entry));
    for (nlohmann::json& each : chunks) toc_["entries"].push_back(std::move(each));
  }
  void Line(nlohmann::json json) {
    json["position"] = lines_++;
    split_ += json.dump() + "\n";
  }
  /// Headers and padding, as a frame before the next file's.
  void Flush() {
    if (!pending_.empty()) blob_ += archive::testing::ZstdOf(pending_);
    pending_.clear();
  }
  /// Where its contents begin.
  std::size_t Skippable(std::string_view contents) {
    blob_ += "\x50\x2a\x4d\x18";
    const auto size = static_cast<std::uint32_t>(contents.size());
    blob_.append(reinterpret_cast<const char*>(&size), sizeof size);
    blob_ += contents;
    return blob_.size() - contents.size();
  }

  ChunkedLies lies_;
  std::string blob_;
  std::string pending_;
  std::string split_;
  nlohmann::json toc_;
  int lines_ = 0;
};

/// Random enough not to shrink, another text for each seed.
inline std::string NoiseOf(unsigned seed, std::size_t size) {
  std::mt19937_64 random(seed);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

/// Of one layer, which is `tar` in the form of zstd:chunked.
inline TestImage ChunkedImage(const std::string& tar, ChunkedBlob blob) {
  TestImage image = TestImage::Make({{tar, Pack::kZstd}});
  image.blobs.erase(image.layer_digests[0]);
  nlohmann::json manifest = nlohmann::json::parse(image.manifest);
  manifest["layers"][0]["size"] = blob.bytes.size();
  manifest["layers"][0]["annotations"] = blob.annotations;
  image.layer_digests[0] = image.Add(std::move(blob.bytes));
  manifest["layers"][0]["digest"] = image.layer_digests[0];
  image.manifest = manifest.dump();
  image.manifest_digest = "sha256:" + digest::Sha256Hex(image.manifest);
  return image;
}

}  // namespace crisp::imaged::testing
