#include "libs/config/schema.h"

#include "libs/testing/test_root.h"

namespace crisp::config {
namespace {

struct Runtime {
  std::string path;
};

struct Sample {
  std::string level = "info";
  bool on = false;
  std::int64_t count = 4;
  std::chrono::seconds wait{5};
  Bytes limit = MiB(4);
  std::string root = "/var/lib/x";
  std::vector<std::string> list = {"a", "b c"};
  std::map<std::string, Runtime> runtimes = {{"runc", {"/usr/bin/runc"}}};

  Schema MakeSchema() {
    Schema schema;
    schema.Section("log", "How it logs.")
        .OneOf("log.level", &level, {"debug", "info"},
               {.text = "Which lines.", .cost = Cost::kLive})
        .Bool("on", &on, {.text = "Whether."})
        .Int("count", &count, 1, 64, {.text = "How many."})
        .Seconds("wait_seconds", &wait, 0, 600, {.text = "How long."})
        .Size("limit", &limit, KiB(1), GiB(1), {.text = "How much."})
        .Path("root", &root, false, {.text = "Where."})
        .List("list", &list, {.text = "Which."}, [](const std::string& entry) {
          return entry.empty() ? InvalidArgument("an empty entry") : Status::Ok();
        });
    schema.Map<Runtime>("runtimes", &runtimes, {.text = "By name."},
                        [](Schema& keys, Runtime& runtime) {
                          keys.Path("path", &runtime.path, false, {.text = "The program."});
                        });
    return schema;
  }
};

std::string ErrorOf(const std::string& yaml) {
  Sample sample;
  return sample.MakeSchema().LoadText(yaml, "f.yaml").message();
}

}  // namespace

TEST_CASE("values of every kind are read") {
  Sample sample;
  const Status status = sample.MakeSchema().LoadText(
      "log: {level: debug}\non: true\ncount: 7\nwait_seconds: 9\nlimit: 2KiB\nroot: /x\n"
      "list: [q]\nruntimes: {crun: {path: /bin/crun}}\n",
      "f.yaml");
  INFO(status.ToString());
  REQUIRE(status.ok());
  CHECK(sample.level == "debug");
  CHECK(sample.on);
  CHECK(sample.count == 7);
  CHECK(sample.wait == std::chrono::seconds(9));
  CHECK(sample.limit == KiB(2));
  CHECK(sample.root == "/x");
  CHECK(sample.list == std::vector<std::string>{"q"});
  CHECK(sample.runtimes.size() == 2);
  CHECK(sample.runtimes["crun"].path == "/bin/crun");
}

TEST_CASE("an empty document and an empty section are the defaults") {
  CHECK(ErrorOf("").empty());
  CHECK(ErrorOf("# nothing\n").empty());
  CHECK(ErrorOf("log:\n").empty());
}

TEST_CASE("an error names file, line and key") {
  CHECK(ErrorOf("on: true\ncuont: 3\n")
            .starts_with("f.yaml:2: cuont: unknown key (did you mean 'count'?) (known: log, on"));
  CHECK(ErrorOf("log:\n  levle: info\n") ==
        "f.yaml:2: log.levle: unknown key (did you mean 'level'?) (known: level)");
  CHECK(ErrorOf("log: {level: loud}") == "f.yaml:1: log.level: 'loud' is none of debug, info");
  CHECK(ErrorOf("log: {level: Inof}") ==
        "f.yaml:1: log.level: 'Inof' is none of debug, info (did you mean 'info'?)");
  CHECK(ErrorOf("on: yes") == "f.yaml:1: on: 'yes' is not true or false");
  CHECK(ErrorOf("count: 4x") == "f.yaml:1: count: '4x' is no whole number");
  CHECK(ErrorOf("count: 65") == "f.yaml:1: count: 65 is not within 1 and 64");
  CHECK(ErrorOf("\ncount: [1]") == "f.yaml:2: count: is one value, not a list or a map");
  CHECK(ErrorOf("count:") == "f.yaml:1: count: has no value");
  CHECK(ErrorOf("limit: 4MB").starts_with("f.yaml:1: limit: '4MB' is no size"));
  CHECK(ErrorOf("limit: 18446744073709551615GiB") ==
        "f.yaml:1: limit: '18446744073709551615GiB' is too large");
  CHECK(ErrorOf("root: var") == "f.yaml:1: root: 'var' is no absolute path");
  CHECK(ErrorOf("root: /a/../b") == "f.yaml:1: root: '/a/../b' has '..' in it");
  CHECK(ErrorOf("list: x") == "f.yaml:1: list: is a list");
  CHECK(ErrorOf("list: ['']") == "f.yaml:1: list: an empty entry");
  CHECK(ErrorOf("runtimes:\n  crun:\n    pth: /x\n") ==
        "f.yaml:3: runtimes.crun.pth: unknown key (did you mean 'path'?) (known: path)");
  CHECK(ErrorOf("runtimes: [x]") == "f.yaml:1: runtimes: is a map by name");
  CHECK(ErrorOf("log: 3") == "f.yaml:1: log: is a map of keys");
  CHECK(ErrorOf("on: true\non: false\n") == "f.yaml:2: on: is there twice");
  CHECK(ErrorOf("a: [\n").starts_with("f.yaml:"));
  CHECK(ErrorOf("--- {}\n---\n{}\n") == "f.yaml: more than one document");
}

TEST_CASE("drop-ins come over the file in the order of their names") {
  testing::TestRoot root;
  const std::string path = root.Write("c.yaml", "count: 2\nlog: {level: debug}\n");
  root.Write("c.yaml.d/20-b.yaml", "count: 20\n");
  root.Write("c.yaml.d/10-a.yaml", "count: 10\nruntimes: {runc: null, crun: {path: /c}}\n");
  root.Write("c.yaml.d/30-not.txt", "nonsense: [");
  Sample sample;
  REQUIRE(sample.MakeSchema().LoadFiles(path, false).ok());
  CHECK(sample.count == 20);
  CHECK(sample.level == "debug");
  CHECK(sample.runtimes.size() == 1);
  CHECK(sample.runtimes.contains("crun"));
}

TEST_CASE("an absent file is an error unless it is optional") {
  testing::TestRoot root;
  Sample sample;
  CHECK(sample.MakeSchema().LoadFiles(root / "none.yaml", true).ok());
  CHECK(sample.MakeSchema().LoadFiles(root / "none.yaml", false).code() == Code::kNotFound);
}

TEST_CASE("what is dumped is read back, with and without comments") {
  Sample sample;
  sample.level = "debug";
  sample.list = {"true", "12", "a: b", "#x", "plain-1.2/x", "\"q\"", "-"};
  for (const bool commented : {false, true}) {
    const std::string dump = sample.MakeSchema().Dump(commented);
    Sample back;
    const Status status = back.MakeSchema().LoadText(dump, "dump");
    INFO(dump << status.ToString());
    REQUIRE(status.ok());
    CHECK(back.level == "debug");
    CHECK(sample.list == back.list);
  }
  CHECK(
      sample.MakeSchema().Dump(true).find("# How long.\n# default 5; seconds; to change: restart\n"
                                          "wait_seconds: 5\n") != std::string::npos);
}

TEST_CASE("a reference of the keys knows their sections, defaults, ranges and maps") {
  Sample sample;
  const std::vector<Key> keys = sample.MakeSchema().Keys();
  const auto find = [&keys](std::string_view path) -> const Key& {
    for (const Key& key : keys) {
      if (key.path == path) return key;
    }
    FAIL(path);
    return keys.front();
  };
  CHECK(find("log").section);
  CHECK(find("count").doc.allowed == "1 to 64");
  CHECK(find("wait_seconds").initial == "5");
  CHECK(find("wait_seconds").doc.unit == "seconds");
  CHECK_FALSE(find("runtimes").section);
  CHECK(find("runtimes.<name>.path").initial.empty());
  CHECK_FALSE(sample.runtimes.contains("<name>"));
}

}  // namespace crisp::config
