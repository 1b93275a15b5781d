#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string_view>

// The part of EROFS's form on disk that our images have: blocks of 4 KiB, nothing compressed,
// inodes of 64 bytes (the "extended" ones, with times), a file's last part behind its inode where
// it fits. The kernel's fs/erofs/erofs_fs.h has all of it. Numbers are little-endian, as on every
// machine that we are built for.
namespace crisp::imaged::erofs {

static_assert(std::endian::native == std::endian::little);

inline constexpr std::uint64_t kBlock = 4096;
inline constexpr std::uint64_t kSuperOffset = 1024;
inline constexpr std::uint32_t kMagic = 0xE0F5E1E2;
/// feature_compat: inodes' times are modification times.
inline constexpr std::uint32_t kTimesOfContents = 2;
/// An inode's number counts these from the first block on.
inline constexpr std::uint64_t kSlot = 32;

struct Superblock {
  std::uint32_t magic = kMagic;
  std::uint32_t checksum = 0;  // none: feature_compat says so
  std::uint32_t feature_compat = kTimesOfContents;
  std::uint8_t block_bits = 12;
  std::uint8_t extra_slots = 0;
  std::uint16_t root = 0;
  std::uint64_t inodes = 0;
  std::uint64_t build_time = 0;
  std::uint32_t build_nanoseconds = 0;
  std::uint32_t blocks = 0;
  std::uint32_t inodes_block = 0;
  std::uint32_t xattrs_block = 0;  // of shared ones, which we have none of
  std::array<std::uint8_t, 16> uuid{};
  std::array<char, 16> name{};
  std::uint32_t feature_incompat = 0;
  std::array<std::uint8_t, 44> rest{};
};
static_assert(sizeof(Superblock) == 128);

/// Inode::format.
inline constexpr std::uint16_t kExtended = 1;
inline constexpr std::uint16_t kPlain = kExtended | 0U << 1U;   // all contents in blocks
inline constexpr std::uint16_t kInline = kExtended | 2U << 1U;  // what is in no whole block: behind

struct Inode {
  std::uint16_t format = kPlain;
  std::uint16_t xattr_words = 0;  // 0: none; else 4 bytes each, but for a header of 12: one word
  std::uint16_t mode = 0;
  std::uint16_t reserved = 0;
  std::uint64_t size = 0;
  std::uint32_t block = 0;  // of the contents; of a device node its number
  std::uint32_t serial = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;
  std::uint32_t links = 1;
  std::array<std::uint8_t, 16> rest{};
};
static_assert(sizeof(Inode) == 64);

/// A directory's contents are blocks, each with its entries first, sorted by name over all of them,
/// and then the names. An entry: inode (8 bytes), where in the block its name begins (2), kind,
/// a reserved byte.
inline constexpr std::uint64_t kEntry = 12;

inline constexpr std::uint64_t kXattrHeader = 12;
/// name_size (without its prefix), the prefix's number, value_size (2 bytes); name, value; to a
/// multiple of 4.
inline constexpr std::uint64_t kXattrEntry = 4;
struct XattrPrefix {
  std::uint8_t number;
  std::string_view text;
};
inline constexpr std::array<XattrPrefix, 2> kXattrPrefixes = {{{1, "user."}, {6, "security."}}};

/// The next multiple.
constexpr std::uint64_t Align(std::uint64_t value, std::uint64_t to) {
  return (value + to - 1) / to * to;
}
/// What the kernel's dev_t is on disk, as st_rdev and mknod(2) have it for numbers below 2^32.
constexpr std::uint64_t kMaxDevice = 0xFFFFFFFF;

}  // namespace crisp::imaged::erofs
