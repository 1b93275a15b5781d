// Precompiled for the targets that know the messages of the CRI.
#include "std.h"

#include "cri/v1/api.pb.h"
