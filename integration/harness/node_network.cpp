#include <filesystem>

#include "integration/harness/node.h"
#include "libs/base/call_context.h"
#include "libs/os/files.h"
#include "libs/sqlite/db.h"

// What pods leave of their network, outside of themselves.
namespace crisp::harness {
namespace {

namespace fs = std::filesystem;

/// Rows of netd's records; -1: they cannot be read.
std::int64_t Attachments(const std::string& state) {
  auto db = sqlite::Db::Open(state + "/netd/netd.db");
  if (!db.ok()) return -1;
  auto count = db->Prepare("SELECT count(*) FROM attachments");
  if (!count.ok() || !count->Step().value_or(false)) return -1;
  return count->Int(0);
}

}  // namespace

void Node::AddNetworkLeftovers(std::vector<std::string>& found) const {
  // Loopback and the (empty) bridge are the node's own.
  std::error_code error;
  const std::string links = Inside({"ip", "-o", "link"}).out;
  if (links.find("veth") != std::string::npos) found.push_back("interface: " + links);
  for (const auto& network : fs::directory_iterator(dir_ + "/state/host-local", error)) {
    for (const auto& address : fs::directory_iterator(network.path(), error)) {
      const std::string name = address.path().filename().string();
      if (name != "lock" && !name.starts_with("last_reserved")) found.push_back("ip: " + name);
    }
  }
  // A rule of one pod has its id, or is in a chain that portmap made for it, or in netd's table.
  const std::string rules = Inside({"nft", "list", "ruleset"}).out;
  std::set<std::string> marks = {"CNI-DN-", "crisp_hostports"};
  constexpr std::size_t kSome = 20;  // comments are cut
  for (const std::string& id : ids_) marks.insert(id.substr(0, kSome));
  for (const std::string& mark : marks) {
    if (rules.find(mark) != std::string::npos) found.push_back("rules of " + mark);
  }
  if (const std::int64_t rows = Attachments(dir_ + "/state"); rows != 0) {
    found.push_back("attachments on record: " + std::to_string(rows));
  }
}

}  // namespace crisp::harness
