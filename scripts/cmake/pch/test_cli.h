// Precompiled for the tests of crispctl.
#include "test_cri.h"

#include <CLI/CLI.hpp>
