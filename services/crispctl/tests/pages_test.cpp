#include <fmt/ranges.h>

#include <CLI/CLI.hpp>

#include "libs/os/files.h"
#include "libs/testing/test_root.h"
#include "services/crispctl/command_table.h"
#include "services/crispctl/commands/commands.h"

using namespace crisp;
using namespace crisp::ctl;

namespace {

/// The command line as it is, but nothing is done: it ends where the verb's callback would run.
struct Dry {
  class App : public CLI::App {
   public:
    using CLI::App::App;
    void pre_callback() override { throw CLI::Success(); }
  };

  Shared shared;
  App app{"", "crispctl"};

  Dry() { AddCommandLine(app, shared); }
  /// Empty, or why the words are wrong. `whole`: what is required must be there.
  std::string Parse(std::vector<std::string> words, bool whole) {
    try {
      ParseCommandLine(app, shared, std::move(words));
    } catch (const CLI::RequiredError& e) {
      return whole ? e.what() : "";
    } catch (const CLI::Success&) {  // understood; or help, version
    } catch (const CLI::ParseError& e) {
      return e.what();
    }
    return "";
  }
};

/// A shell's words up to the first thing that is no word; crispctl itself is left out.
std::vector<std::string> Words(std::string_view line) {
  std::vector<std::string> words(1);
  char quote = 0;
  for (const char c : line) {
    if (quote != 0) {
      if (c == quote) {
        quote = 0;
      } else {
        words.back() += c;
      }
    } else if (c == '\'' || c == '"') {
      quote = c;
    } else if (c == ' ') {
      if (!words.back().empty()) words.emplace_back();
    } else if (c == '|' || c == ';' || c == '>' || c == '#' || c == '&') {
      break;
    } else {
      words.back() += c;
    }
  }
  if (words.back().empty()) words.pop_back();
  if (!words.empty()) words.erase(words.begin());
  return words;
}

/// Lines of code blocks that start with crispctl, and what is **crispctl ...** within a text.
struct Examples {
  std::vector<std::string> lines;
  std::vector<std::string> mentions;
};

Examples ExamplesOf(const std::string& page) {
  Examples found;
  std::size_t at = 0;
  while (at < page.size()) {
    const std::size_t end = std::min(page.find('\n', at), page.size());
    std::string_view line = std::string_view(page).substr(at, end - at);
    at = end + 1;
    const std::size_t indent = std::min(line.find_first_not_of(' '), line.size());
    if (indent >= 4 && line.substr(indent).starts_with("crispctl ")) {
      found.lines.emplace_back(line.substr(indent));
    }
    constexpr std::string_view kMention = "**crispctl ";
    for (std::size_t m = line.find(kMention); m != line.npos; m = line.find(kMention, m + 1)) {
      const std::size_t stop = line.find("**", m + 2);
      if (stop != line.npos) found.mentions.emplace_back(line.substr(m + 2, stop - m - 2));
    }
  }
  return found;
}

std::vector<std::string> Pages() {
  std::vector<std::string> pages;
  const std::string dir = CRISP_SOURCE_DIR "/deploy/man";
  const std::vector<std::string> names = os::ListDir(dir).value();
  for (const std::string& name : names) {
    if (name.ends_with(".md")) pages.push_back(dir + "/" + name);
  }
  return pages;
}

}  // namespace

TEST_CASE("What the manual pages tell one to type is a command of crispctl") {
  std::size_t seen = 0;
  for (const std::string& page : Pages()) {
    const Examples found = ExamplesOf(os::ReadFile(page).value());
    for (const std::string& line : found.lines) {
      INFO(page << ": " << line);
      CHECK(Dry().Parse(Words(line), true).empty());
      ++seen;
    }
    for (const std::string& mention : found.mentions) {
      INFO(page << ": " << mention);
      const std::vector<std::string> words = Words(mention);
      const std::vector<Verb> table = CommandTable(Dry().app);
      REQUIRE_FALSE(words.empty());
      if (words.front().starts_with("-")) continue;
      const Verb* verb = FindVerb(table, words.front());
      REQUIRE(verb != nullptr);
      if (!verb->verbs.empty() && words.size() > 1) {
        CHECK(FindVerb(table, words[0] + " " + words[1]) != nullptr);
      }
      CHECK(Dry().Parse(words, false).empty());
    }
  }
  CHECK(seen > 10);
}

TEST_CASE("A wrong example would be noticed") {
  CHECK_FALSE(Dry().Parse(Words("crispctl pull"), true).empty());
  CHECK_FALSE(Dry().Parse(Words("crispctl pull --nonsense x"), true).empty());
  CHECK_FALSE(Dry().Parse(Words("crispctl nonsense"), true).empty());
  CHECK(Dry().Parse(Words("crispctl exec web -- ls -l | wc"), true).empty());
}

TEST_CASE("From a command's first word on every word is the command's, as it was typed") {
  using List = std::vector<std::string>;
  const auto parsed = [](const List& words) {
    Dry dry;
    INFO(fmt::format("{}", fmt::join(words, " ")));
    CHECK(dry.Parse(words, true).empty());
    return dry.shared;
  };
  CHECK(parsed({"exec", "hello", "sh", "-c", "id"}).command == List{"sh", "-c", "id"});
  CHECK(parsed({"exec", "hello", "sh", "-c", "id"}).config.empty());
  CHECK(parsed({"exec", "hello", "ls", "-s", "x", "--", "-o"}).command ==
        List{"ls", "-s", "x", "--", "-o"});
  CHECK(parsed({"exec", "hello", "--", "ls", "-t"}).command == List{"ls", "-t"});
  CHECK(parsed({"run", "image", "--net", "echo", "[a,b]", "--help"}).command ==
        List{"echo", "[a,b]", "--help"});
  CHECK(parsed({"run", "--", "image", "-x"}).command == List{"-x"});
  CHECK(parsed({"run", "image"}).command.empty());
  // Ours are wherever they were, with values of their own.
  for (const List& before :
       {List{"-s", "sock", "exec", "-it", "hello"}, List{"exec", "-it", "-s", "sock", "hello"},
        List{"exec", "hello", "-t", "-i", "--socket", "sock"},
        List{"--socket=sock", "run", "-e", "A=b", "--name", "n", "-d", "image"},
        List{"run", "-eA=b", "image", "--name=n", "-ssock"}}) {
    List words = before;
    words.insert(words.end(), {"sh", "-s", "other"});
    CHECK(parsed(words).command == List{"sh", "-s", "other"});
    CHECK(parsed(words).socket == "sock");
  }
  CHECK(parsed({"stop", "one", "two", "-t", "3"}).command.empty());
  CHECK_FALSE(Dry().Parse({"exec", "hello"}, true).empty());
}

TEST_CASE(
    "The completions and the reference have every verb, flag and choice, and none that hides") {
  const std::vector<Verb> table = CommandTable(Dry().app);
  REQUIRE(table.front().verbs.size() > 15);
  CHECK(FindVerb(table, "reference") == nullptr);
  const std::string reference = CommandReference(table);
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    const std::string script = Completion(table, shell);
    for (const Verb& verb : table) {
      INFO(shell << ": " << verb.path);
      CHECK(script.find(verb.path) != script.npos);
      for (const Flag& flag : verb.flags) {
        const std::string& name = flag.names.back();
        INFO(name);
        CHECK(script.find(shell == "fish" ? "-l " + name.substr(2) : name) != script.npos);
        CHECK(reference.find(flag.names.back()) != reference.npos);
      }
    }
    CHECK(script.find("table json") != script.npos);
    CHECK(script.find("reference") == script.npos);
  }
  const Verb* import = FindVerb(table, "image import");
  REQUIRE(import != nullptr);
  REQUIRE(import->operands.size() == 1);
  CHECK(import->operands.front().IsFile());
  CHECK(FindVerb(table, "pull")->operands.front().many);
  CHECK(table.front().flags.size() == 5);
}
