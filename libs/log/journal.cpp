#include "libs/log/journal.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "libs/log/level.h"

namespace crisp::log {
namespace {

/// syslog's numbers, by Level. There is none below debug.
constexpr std::array<std::string_view, kLevels> kPriorities = {"7", "7", "6", "4", "3", "2"};

/// A name of the journal: upper case letters, digits and '_', at most 64, not '_' first.
std::string NameOf(std::string_view key) {
  constexpr std::size_t kLongest = 64;
  std::string name = "CRISP_";
  for (const char c : key.substr(0, kLongest - name.size())) {
    const bool digit = c >= '0' && c <= '9';
    if (c >= 'a' && c <= 'z') {
      name += static_cast<char>(c - 'a' + 'A');
    } else {
      name += digit || (c >= 'A' && c <= 'Z') ? c : '_';
    }
  }
  return name;
}

void Append(std::string& entry, std::string_view name, std::string_view value) {
  entry += name;
  if (value.find('\n') == value.npos) {
    entry += '=';
  } else {
    // What has lines goes with its length, 64 bits, the lowest byte first.
    entry += '\n';
    for (unsigned shift = 0; shift < 64; shift += 8) {
      entry += static_cast<char>((std::uint64_t{value.size()} >> shift) & 0xFFU);
    }
  }
  entry += value;
  entry += '\n';
}

}  // namespace

bool IsJournalStream(int fd, const char* journal_stream) {
  if (journal_stream == nullptr) return false;
  struct stat info {};
  if (fstat(fd, &info) != 0) return false;
  return fmt::format("{}:{}", info.st_dev, info.st_ino) == journal_stream;
}

std::string JournalEntry(const Options& options, Level level, std::string_view message,
                         Fields fields) {
  std::string entry;
  Append(entry, "MESSAGE", message);
  Append(entry, "PRIORITY", kPriorities.at(static_cast<std::size_t>(level)));
  if (!options.service.empty()) Append(entry, "SYSLOG_IDENTIFIER", "crisp-" + options.service);
  if (!options.instance.empty()) Append(entry, "CRISP_INSTANCE", options.instance);
  for (const Field& field : fields) Append(entry, NameOf(field.key), field.value);
  return entry;
}

bool SendToJournal(std::string_view path, std::string_view entry) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.data(), path.size());
  // One for all lines: journald may come and go behind it.
  static const int kSocket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  // sockaddr_un is what sendto(2) means by sockaddr.
  const auto* target = reinterpret_cast<const sockaddr*>(&address);
  return sendto(kSocket, entry.data(), entry.size(), MSG_NOSIGNAL, target, size) >= 0;
}

}  // namespace crisp::log
