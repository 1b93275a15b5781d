#pragma once

#include "libs/base/result.h"
#include "libs/os/unique_fd.h"

namespace crisp::os {

/// Both ends of a pipe(2), closed on exec.
struct Pipe {
  UniqueFd read;
  UniqueFd write;
};
Result<Pipe> MakePipe();

/// O_NONBLOCK, beside the flags that the descriptor has.
Status SetNonBlocking(int fd);

}  // namespace crisp::os
