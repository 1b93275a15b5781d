// Precompiled for the tests.
#include "std.h"

#include <catch2/catch.hpp>
