// Precompiled for the targets that speak gRPC.
#include "std.h"

#include <grpcpp/grpcpp.h>
