// Precompiled for the targets that serve or call the CRI.
#include "rpc.h"

#include "cri/v1/api.grpc.pb.h"
