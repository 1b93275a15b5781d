#include "services/rund/logger/dropper.h"

#include <catch2/catch.hpp>
#include <string>

using namespace crisp::rund::logger;  // NOLINT

namespace {

constexpr Nanoseconds kSecond = 1'000'000'000;

struct Text final : Sink {
  void Write(std::string_view lines) override { text += lines; }
  std::string text;
};

std::string Of(const std::string& stream, const std::string& tag, const std::string& text) {
  return "2026-01-02T03:04:05.000000006+00:00 " + stream + " " + tag + " " + text + "\n";
}
std::string Times(int count, const std::string& line) {
  std::string lines;
  for (int i = 0; i < count; ++i) lines += line;
  return lines;
}

const std::string kLine = Of("stdout", "F", std::string(1024 - 46, 'x'));

Dropper Make(std::uint64_t rate, std::uint64_t burst) { return {Bucket(rate, burst, 0), rate}; }

}  // namespace

TEST_CASE("A note is a line as the monitor writes it; the rest of a line is none") {
  char text[kMaxNote];
  const std::string note(Note({.tv_sec = 1'767'323'045, .tv_nsec = 6}, "hear, hear", text));
  CHECK(note == Of("stdout", "F", "[crisp: hear, hear]"));
  CHECK(IsLine(note));
  CHECK(Note({}, std::string(1000, 'x'), text).ends_with("x]\n"));
  for (const unsigned cut : {1U, 9U, 34U, 36U, 43U}) CHECK_FALSE(IsLine(note.substr(cut)));
  CHECK_FALSE(IsLine("some stdout text\n"));
  CHECK_FALSE(IsLine("\n"));
}

TEST_CASE("What is within the limit passes as it is") {
  REQUIRE(kLine.size() == 1024);
  Dropper dropper = Make(10 << 10, 20 << 10);
  Text out;
  dropper.Pass(Times(20, kLine), 0, out);
  dropper.Pass(Times(10, kLine), kSecond, out);
  CHECK((out.text == Times(30, kLine)));
  CHECK(dropper.dropped().lines == 0);
  CHECK(dropper.Wait(kSecond) == -1);
}

TEST_CASE("One line stands for all that was too much, with how much that was") {
  Dropper dropper = Make(20 << 10, 20 << 10);
  Text out;
  dropper.Pass(Times(50, kLine), 0, out);
  CHECK((out.text == Times(20, kLine)));
  dropper.Pass(Times(5, kLine), kSecond / 2,
               out);  // there is room again, but not for a second's worth
  CHECK((out.text == Times(20, kLine)));
  dropper.Pass(kLine, kSecond + 1, out);
  const std::string gap =
      Of("stdout", "F", "[crisp: 35 lines (35840 bytes) left out: more than 20480 bytes a second]");
  CHECK((out.text == Times(20, kLine) + gap + kLine));
  CHECK(dropper.dropped().lines == 35);
  CHECK(dropper.dropped().bytes == 35840);
}

TEST_CASE("The line for a gap comes by itself when nothing follows") {
  Dropper dropper = Make(20 << 10, 20 << 10);
  Text out;
  dropper.Pass(Times(21, kLine), 0, out);
  const Nanoseconds wait = dropper.Wait(0);
  CHECK(wait > 0);
  CHECK(wait <= kSecond + 1);
  dropper.Tick(wait - 10, out);
  CHECK((out.text == Times(20, kLine)));
  dropper.Tick(wait, out);
  CHECK((out.text.find("[crisp: 1 lines") != std::string::npos));
  const std::size_t size = out.text.size();
  dropper.Tick(2 * wait, out);
  dropper.End(out);
  CHECK(out.text.size() == size);
}

TEST_CASE("The end of the log closes a gap") {
  Dropper dropper = Make(1 << 10, 16 << 10);
  Text out;
  dropper.Pass(Times(17, kLine), 0, out);
  dropper.End(out);
  CHECK((out.text.find("[crisp: 1 lines (1024 bytes)") != std::string::npos));
}

TEST_CASE("A text line that is cut by a gap is ended before it") {
  Dropper dropper = Make(16 << 10, 16 << 10);
  Text out;
  const std::string piece = Of("stderr", "P", std::string(6000, 'a'));
  dropper.Pass(Times(3, piece) + Of("stderr", "F", "end") + Of("stdout", "F", "other"), 0, out);
  CHECK((out.text == Times(2, piece) + Of("stderr", "F", "")));
  dropper.Tick(2 * kSecond, out);
  CHECK(out.text.ends_with(
      Of("stdout", "F", "[crisp: 2 lines (6146 bytes) left out: more than 16384 bytes a second]")));
}

TEST_CASE("Over a long time no more than the rate passes, whatever comes") {
  constexpr std::uint64_t kRate = 100 << 10;
  Dropper dropper = Make(kRate, kRate);
  Text out;
  constexpr int kSeconds = 60;
  for (Nanoseconds now = 0; now < kSeconds * kSecond; now += kSecond / 100) {
    dropper.Pass(Times(10, kLine), now, out);
  }
  CHECK(out.text.size() <= (kSeconds + 1) * kRate + kSeconds * 200);
  CHECK(out.text.size() >= (kSeconds - 2) * kRate / 2);
}

TEST_CASE("Lines that are none of conmon's do not break it") {
  Dropper dropper = Make(1 << 10, 16 << 10);
  Text out;
  const std::string garbage = GENERATE(as<std::string>(), "\n", " \n", "a b\n", "   \n",
                                       "t stdout\n", "t stdout P", "no newline");
  dropper.Pass(garbage + "\n" + Times(17, kLine) + garbage, 0, out);
  dropper.End(out);
  CHECK(out.text.starts_with(garbage));
  CHECK(ParseLine(garbage).stream == "stdout");
}
