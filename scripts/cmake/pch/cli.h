// Precompiled for crispctl, which has a command line and knows the messages of the CRI.
#include "cri.h"

#include <CLI/CLI.hpp>
