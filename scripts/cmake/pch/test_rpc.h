// Precompiled for the tests that speak gRPC.
#include "test.h"

#include <grpcpp/grpcpp.h>
