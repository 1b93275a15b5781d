// Precompiled for the tests that know the messages of the CRI.
#include "test.h"

#include "cri/v1/api.pb.h"
