#pragma once

#include <fmt/format.h>

#include <map>
#include <string>
#include <string_view>

namespace crisp::archive::testing {

/// Makes small tar archives for tests, honest or not.
class TarWriter {
 public:
  struct Attributes {
    unsigned mode = 0644;
    unsigned uid = 0;
    unsigned gid = 0;
    long mtime = 1'700'000'000;
    std::map<std::string, std::string> pax;  // records of an extended header before the entry
  };

  TarWriter& File(const std::string& path, std::string_view text) {
    return File(path, text, Attributes());
  }
  TarWriter& File(const std::string& path, std::string_view text, const Attributes& attributes) {
    Header(path, '0', text.size(), "", attributes);
    return Contents(text);
  }
  TarWriter& Dir(const std::string& path) {
    Attributes attributes;
    attributes.mode = 0755;
    return Dir(path, attributes);
  }
  TarWriter& Dir(const std::string& path, const Attributes& attributes) {
    Header(path, '5', 0, "", attributes);
    return *this;
  }
  TarWriter& Symlink(const std::string& path, const std::string& target) {
    Header(path, '2', 0, target, Attributes());
    return *this;
  }
  TarWriter& HardLink(const std::string& path, const std::string& target) {
    Header(path, '1', 0, target, Attributes());
    return *this;
  }
  TarWriter& Other(const std::string& path, char flag, std::string_view text = "") {
    Header(path, flag, text.size(), "", Attributes());
    return Contents(text);
  }
  TarWriter& Device(const std::string& path, char flag, unsigned major, unsigned minor) {
    major_ = major;
    minor_ = minor;
    Header(path, flag, 0, "", Attributes());
    major_ = minor_ = 0;
    return *this;
  }
  /// Bytes as they are.
  TarWriter& Raw(std::string_view bytes) {
    out_ += bytes;
    return *this;
  }
  std::string Done() const { return out_ + std::string(1024, '\0'); }

  static std::string Block(const std::string& path, char flag, std::uint64_t size,
                           const std::string& link, const Attributes& attributes,
                           unsigned major = 0, unsigned minor = 0) {
    std::string block(512, '\0');
    const auto put = [&block](std::size_t at, std::string_view text) {
      block.replace(at, text.size(), text);
    };
    put(0, std::string_view(path).substr(0, 100));
    put(100, fmt::format("{:07o}", attributes.mode));
    put(108, fmt::format("{:07o}", attributes.uid));
    put(116, fmt::format("{:07o}", attributes.gid));
    put(124, fmt::format("{:011o}", size));
    put(136, fmt::format("{:011o}", attributes.mtime));
    block[156] = flag;
    put(157, std::string_view(link).substr(0, 100));
    put(257, std::string_view("ustar\0"
                              "00",
                              8));
    put(329, fmt::format("{:07o}", major));
    put(337, fmt::format("{:07o}", minor));
    Sign(block);
    return block;
  }
  static void Sign(std::string& block) {
    block.replace(148, 8, "        ");
    unsigned sum = 0;
    for (const char c : block) sum += static_cast<unsigned char>(c);
    block.replace(148, 7, fmt::format("{:06o}", sum) + std::string(1, '\0'));
  }

 private:
  void Header(const std::string& path, char flag, std::uint64_t size, const std::string& link,
              const Attributes& attributes) {
    std::string records;
    for (const auto& [key, value] : attributes.pax) {
      std::size_t length = key.size() + value.size() + 3;
      std::string record;
      for (std::size_t total = length + 1;; ++total) {
        record = fmt::format("{} {}={}\n", total, key, value);
        if (record.size() == total) break;
      }
      records += record;
    }
    if (!records.empty()) {
      out_ += Block("PaxHeader", 'x', records.size(), "", Attributes());
      Contents(records);
    }
    out_ += Block(path, flag, size, link, attributes, major_, minor_);
  }
  TarWriter& Contents(std::string_view text) {
    out_ += text;
    out_.append((512 - text.size() % 512) % 512, '\0');
    return *this;
  }

  std::string out_;
  unsigned major_ = 0;
  unsigned minor_ = 0;
};

}  // namespace crisp::archive::testing
