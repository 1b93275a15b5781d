#pragma once

#include "libs/work/operations.h"

namespace crisp::daemon {

namespace v1 {
class OperationsRequest;
class OperationsResponse;
}  // namespace v1

/// The answer of daemon.v1.Daemon/Operations.
void TellOperations(const work::Operations& operations, const v1::OperationsRequest& request,
                    v1::OperationsResponse& response);

}  // namespace crisp::daemon
