#include "libs/base/status.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <system_error>

namespace crisp {
namespace {

Code CodeOfErrno(int error) {
  switch (error) {
    case 0: return Code::kInternal;  // a failed call that left no errno is our bug
    case ENOENT:
    case ESRCH:
    case ENODEV:
    case ENXIO: return Code::kNotFound;
    case EEXIST: return Code::kAlreadyExists;
    case EACCES:
    case EPERM:
    case EROFS: return Code::kPermissionDenied;
    case EINVAL:
    case ENAMETOOLONG:
    case ELOOP:
    case ENOTDIR:
    case EISDIR:
    case EXDEV:
    case E2BIG: return Code::kInvalidArgument;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EFBIG: return Code::kResourceExhausted;
    case EAGAIN:
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EHOSTUNREACH:
    case ENETUNREACH: return Code::kUnavailable;
    case ETIMEDOUT: return Code::kDeadlineExceeded;
    case ECANCELED:
    case EINTR: return Code::kCancelled;
    case EBUSY:
    case ENOTEMPTY: return Code::kFailedPrecondition;
    case ENOSYS:
    case EOPNOTSUPP: return Code::kUnimplemented;
    default: return Code::kInternal;
  }
}

}  // namespace

std::string CodeName(Code code) {
  static constexpr std::array kNames = {"OK",
                                        "CANCELLED",
                                        "UNKNOWN",
                                        "INVALID_ARGUMENT",
                                        "DEADLINE_EXCEEDED",
                                        "NOT_FOUND",
                                        "ALREADY_EXISTS",
                                        "PERMISSION_DENIED",
                                        "RESOURCE_EXHAUSTED",
                                        "FAILED_PRECONDITION",
                                        "ABORTED",
                                        "OUT_OF_RANGE",
                                        "UNIMPLEMENTED",
                                        "INTERNAL",
                                        "UNAVAILABLE",
                                        "DATA_LOSS",
                                        "UNAUTHENTICATED"};
  const auto index = static_cast<std::size_t>(code);
  if (index >= kNames.size()) return fmt::format("CODE_{}", static_cast<int>(code));
  return kNames[index];
}

Status Status::FromErrno(int error, std::string_view what) {
  Status status(CodeOfErrno(error),
                fmt::format("{}: {}", what, std::generic_category().message(error)));
  status.errno_ = error;
  return status;
}

Status Status::Prefixed(std::string prefix) && {
  prefix += ": ";
  message_.insert(0, prefix);
  return std::move(*this);
}

std::string Status::ToString() const {
  if (ok()) return "OK";
  return fmt::format("{}: {}", CodeName(code_), message_);
}

}  // namespace crisp
