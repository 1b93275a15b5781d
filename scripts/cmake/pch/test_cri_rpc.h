// Precompiled for the tests that serve or call the CRI.
#include "test_rpc.h"

#include "cri/v1/api.grpc.pb.h"
