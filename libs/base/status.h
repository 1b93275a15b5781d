#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

namespace crisp {

/// gRPC's canonical codes, number for number, so that `rpc/` translates by a cast.
enum class Code {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

/// "NOT_FOUND" and so on; "CODE_<n>" for a number outside the enum.
std::string CodeName(Code code);

/// The outcome of something that can fail: a code, one sentence for a person, and the errno where a
/// system call was the cause. The code is chosen where the cause is known and kept all the way up
/// to the kubelet.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status Ok() { return {}; }

  /// The Status of a failed system call: the code that the errno stands for, `what` and the errno's
  /// text. ENOENT → kNotFound, EEXIST → kAlreadyExists, EACCES/EPERM → kPermissionDenied, EINVAL
  /// and friends → kInvalidArgument, ENOSPC/EMFILE/ENOMEM/EDQUOT → kResourceExhausted,
  /// EAGAIN/ECONNREFUSED … → kUnavailable, ETIMEDOUT → kDeadlineExceeded, ENOSYS/EOPNOTSUPP →
  /// kUnimplemented, all others kInternal.
  static Status FromErrno(int error, std::string_view what);

  template <typename... Args>
  static Status Errno(int error, fmt::format_string<Args...> format, Args&&... args) {
    return FromErrno(error, fmt::format(format, std::forward<Args>(args)...));
  }

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  /// 0 when no system call was the cause.
  int error() const { return errno_; }

  /// Puts what was being done before the message ("mount rootfs of abc: ..."). The code stays; Ok
  /// stays Ok.
  template <typename... Args>
  Status While(fmt::format_string<Args...> format, Args&&... args) && {
    if (ok()) return std::move(*this);
    return std::move(*this).Prefixed(fmt::format(format, std::forward<Args>(args)...));
  }
  template <typename... Args>
  Status While(fmt::format_string<Args...> format, Args&&... args) const& {
    return Status(*this).While(format, std::forward<Args>(args)...);
  }

  /// "NOT_FOUND: no such image", for logs.
  std::string ToString() const;

 private:
  Status Prefixed(std::string prefix) &&;

  Code code_ = Code::kOk;
  int errno_ = 0;
  std::string message_;
};

#define CRISP_STATUS_MAKER(Name)                                              \
  template <typename... Args>                                                 \
  Status Name(fmt::format_string<Args...> format, Args&&... args) {           \
    return {Code::k##Name, fmt::format(format, std::forward<Args>(args)...)}; \
  }
// NotFound("no container {}", id) and so on: one short maker for each code that we choose
// ourselves.
CRISP_STATUS_MAKER(Cancelled)
CRISP_STATUS_MAKER(InvalidArgument)
CRISP_STATUS_MAKER(DeadlineExceeded)
CRISP_STATUS_MAKER(NotFound)
CRISP_STATUS_MAKER(AlreadyExists)
CRISP_STATUS_MAKER(PermissionDenied)
CRISP_STATUS_MAKER(ResourceExhausted)
CRISP_STATUS_MAKER(FailedPrecondition)
CRISP_STATUS_MAKER(Aborted)
CRISP_STATUS_MAKER(Unimplemented)
CRISP_STATUS_MAKER(Internal)
CRISP_STATUS_MAKER(Unavailable)
CRISP_STATUS_MAKER(DataLoss)
CRISP_STATUS_MAKER(Unauthenticated)
CRISP_STATUS_MAKER(Unknown)
#undef CRISP_STATUS_MAKER

}  // namespace crisp
