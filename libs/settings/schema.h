#pragma once

namespace crisp::config {
class Schema;
}

// For this library's own files.
namespace crisp::settings {

struct Settings;

/// The keys of the file, filling `settings`, which must outlive it and stay where it is.
config::Schema MakeSchema(Settings& settings);

}  // namespace crisp::settings
