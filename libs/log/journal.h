#pragma once

#include <string>
#include <string_view>

#include "libs/log/log.h"

// systemd's journal, spoken to in its native protocol: one datagram a line, each field apart, so
// that `journalctl CRISP_POD=...` finds it. Written by hand: libsystemd would be mapped by each of
// the daemons for one sendmsg.
namespace crisp::log {

/// Where journald listens.
inline constexpr std::string_view kJournalSocket = "/run/systemd/journal/socket";

/// Whether `fd` is the stream that journald has given to a unit as JOURNAL_STREAM
/// ("<device>:<inode>"; may be null): then nobody has pointed it elsewhere.
bool IsJournalStream(int fd, const char* journal_stream);

/// The datagram of a line: MESSAGE, PRIORITY, SYSLOG_IDENTIFIER ("crisp-rund"), CRISP_INSTANCE, and
/// CRISP_<KEY> for each field.
std::string JournalEntry(const Options& options, Level level, std::string_view message,
                         Fields fields);

/// Sends a datagram to the journal at `path`. False: nobody takes it; then the line is for stderr.
bool SendToJournal(std::string_view path, std::string_view entry);

}  // namespace crisp::log
