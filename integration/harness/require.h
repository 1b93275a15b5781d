#pragma once

#include <catch2/catch.hpp>

#include "integration/harness/cri.h"

/// REQUIRE with the call's own words when it fails.
#define REQUIRE_OK(...)                                    \
  do {                                                     \
    const auto& crisp_answer = (__VA_ARGS__);              \
    INFO(::crisp::harness::Describe(crisp_answer.status)); \
    REQUIRE(crisp_answer.ok());                            \
  } while (false)
