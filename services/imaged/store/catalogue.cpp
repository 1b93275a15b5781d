#include "services/imaged/store/catalogue.h"

#include <array>

#include "libs/base/try.h"
#include "libs/json/json.h"

namespace crisp::imaged {
namespace {

// Names are looked up by their exact text; their kind is "tag", "digest" (what a reference stood
// for) or "manifest" (of an index's digest, what was chosen). image_layers keeps a condemned
// image's layers, too.
constexpr std::array<std::string_view, 5> kMigrations = {
    R"(CREATE TABLE images (
         id TEXT PRIMARY KEY,
         config BLOB NOT NULL,
         uid INTEGER,
         username TEXT NOT NULL,
         created INTEGER NOT NULL,
         condemned INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
       CREATE TABLE layers (
         chain TEXT PRIMARY KEY,
         diff_id TEXT NOT NULL,
         bytes INTEGER NOT NULL,
         inodes INTEGER NOT NULL,
         keep_until INTEGER NOT NULL,
         unsynced_boot TEXT NOT NULL) WITHOUT ROWID;
       CREATE TABLE image_layers (
         image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
         position INTEGER NOT NULL,
         chain TEXT NOT NULL REFERENCES layers(chain),
         PRIMARY KEY (image, position)) WITHOUT ROWID;
       CREATE INDEX image_layers_by_chain ON image_layers(chain);
       CREATE TABLE names (
         name TEXT PRIMARY KEY,
         image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
         kind TEXT NOT NULL) WITHOUT ROWID;
       CREATE INDEX names_by_image ON names(image);
       CREATE TABLE snapshots (
         owner TEXT PRIMARY KEY,
         image TEXT NOT NULL REFERENCES images(id),
         created INTEGER NOT NULL) WITHOUT ROWID;
       CREATE INDEX snapshots_by_image ON snapshots(image);)",
    R"(CREATE TABLE signatures (
         image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
         data TEXT NOT NULL,
         PRIMARY KEY (image, data)) WITHOUT ROWID;)",
    R"(ALTER TABLE layers ADD COLUMN tree TEXT NOT NULL DEFAULT '';
       ALTER TABLE layers ADD COLUMN checked INTEGER NOT NULL DEFAULT 0;)",
    R"(CREATE TABLE signatures_by_name (
         image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
         name TEXT NOT NULL,
         data TEXT NOT NULL,
         PRIMARY KEY (image, name, data)) WITHOUT ROWID;
       INSERT INTO signatures_by_name SELECT image, '', data FROM signatures;
       DROP TABLE signatures;
       ALTER TABLE signatures_by_name RENAME TO signatures;
       UPDATE layers SET tree = '';  -- TreeDigest is another one)",
    R"(ALTER TABLE images ADD COLUMN annotations TEXT NOT NULL DEFAULT '';  -- a JSON object)"};

std::int64_t Stamp(WallTime time) { return time.time_since_epoch().count(); }
WallTime FromStamp(std::int64_t stamp) { return WallTime(std::chrono::nanoseconds(stamp)); }

std::string AnnotationsText(const std::map<std::string, std::string>& annotations) {
  return annotations.empty() ? std::string() : json::Dump(annotations);
}

Result<std::map<std::string, std::string>> ParseAnnotations(const std::string& text) {
  std::map<std::string, std::string> annotations;
  if (text.empty()) return annotations;
  const nlohmann::json object = CRISP_TRY(json::Parse(text, {.max_bytes = text.size() + 1}));
  for (const auto& [key, value] : object.items())
    annotations.emplace(key, CRISP_TRY(json::GetString(object, key)));
  return annotations;
}

constexpr std::string_view kByName = "SELECT image FROM names WHERE name = ?1";
/// What a reference means: its digest, and without one its tag.
std::string KeyOf(const ref::ImageRef& name) {
  return name.digest.empty() ? name.Tagged() : name.Digested();
}

Result<std::optional<std::string>> OneText(sqlite::Db& db, std::string_view sql,
                                           const std::string& parameter) {
  sqlite::Statement row = CRISP_TRY(db.Prepare(sql));
  row.Bind(1, parameter);
  if (!CRISP_TRY(row.Step())) return std::optional<std::string>();
  return std::optional<std::string>(row.Text(0));
}

}  // namespace

Result<std::unique_ptr<Catalogue>> Catalogue::Open(const std::string& path,
                                                   const std::string& boot_id) {
  sqlite::Db db = CRISP_TRY(sqlite::Db::Open(path));
  CRISP_TRY(db.Migrate(kMigrations).While("{}", path));
  sqlite::Db reader = CRISP_TRY(sqlite::Db::Open(path, {.read_only = true}));
  return std::unique_ptr<Catalogue>(new Catalogue(std::move(db), std::move(reader), boot_id));
}

/// The caller holds the mutex of what reads; in the other private methods, of what writes.
Result<std::vector<ImageRecord>> Catalogue::Select(std::string_view where,
                                                   const std::string& parameter) {
  std::vector<ImageRecord> images;
  sqlite::Statement rows = CRISP_TRY(reader_.Prepare(fmt::format(
      "SELECT i.id, i.uid, i.username, i.annotations, length(i.config) + coalesce((SELECT "
      "sum(l.bytes) "
      "FROM image_layers il JOIN layers l ON l.chain = il.chain WHERE il.image = i.id), 0) "
      "FROM images i WHERE i.condemned = 0 AND {} ORDER BY i.created, i.id",
      where)));
  if (!parameter.empty()) rows.Bind(1, parameter);
  sqlite::Statement names = CRISP_TRY(
      reader_.Prepare("SELECT name, kind FROM names WHERE image = ?1 ORDER BY kind, name"));
  while (CRISP_TRY(rows.Step())) {
    ImageRecord image;
    image.id = rows.Text(0);
    if (!rows.IsNull(1)) image.uid = rows.Int(1);
    image.username = rows.Text(2);
    image.annotations = CRISP_TRY(ParseAnnotations(rows.Text(3)));
    image.size = static_cast<std::uint64_t>(rows.Int(4));
    names.Reset();
    names.Bind(1, image.id);
    while (CRISP_TRY(names.Step()))
      (names.Text(1) == "tag" ? image.tags : image.digests).push_back(names.Text(0));
    images.push_back(std::move(image));
  }
  return images;
}

Result<std::vector<ImageRecord>> Catalogue::List() {
  const std::lock_guard lock(read_mutex_);
  return Select("1", "");
}

Result<std::optional<ImageRecord>> Catalogue::Find(const std::string& id) {
  const std::lock_guard lock(read_mutex_);
  std::vector<ImageRecord> found = CRISP_TRY(Select("i.id = ?1", id));
  if (found.empty()) return std::optional<ImageRecord>();
  return std::optional<ImageRecord>(std::move(found.front()));
}

Result<std::vector<ref::ImageRef>> Catalogue::ReadingsOf(std::string_view text) const {
  if (names_) return names_(text);
  return std::vector{CRISP_TRY(ref::Parse(text))};
}

Result<std::optional<ref::ImageRef>> Catalogue::NameOf(std::string_view text,
                                                       const std::string& id) {
  Result<std::vector<ref::ImageRef>> readings = ReadingsOf(text);
  if (!readings.ok()) return std::optional<ref::ImageRef>();
  const std::lock_guard lock(read_mutex_);
  for (ref::ImageRef& name : *readings)
    if (CRISP_TRY(OneText(reader_, kByName, KeyOf(name))) == id)
      return std::optional(std::move(name));
  return std::optional<ref::ImageRef>();
}

Result<std::optional<std::string>> Catalogue::Resolve(std::string_view text) {
  const std::string given(text);
  const Result<std::vector<ref::ImageRef>> names = ReadingsOf(given);
  const std::lock_guard lock(read_mutex_);
  constexpr std::string_view kById = "SELECT id FROM images WHERE id = ?1 AND condemned = 0";
  const std::string hex = given.starts_with("sha256:") ? given.substr(7) : given;
  if (IsFullId(hex)) {
    const std::string digest = "sha256:" + hex;
    if (auto id = CRISP_TRY(OneText(reader_, kById, digest))) return id;
    // A manifest's digest, whatever the repository.
    return OneText(reader_,
                   "SELECT image FROM names WHERE kind <> 'tag' AND name LIKE '%@' || ?1 LIMIT 1",
                   digest);
  }
  if (names.ok()) {
    for (const ref::ImageRef& name : *names)
      if (auto id = CRISP_TRY(OneText(reader_, kByName, KeyOf(name)))) return id;
  }
  if (!IsIdOrPrefix(hex)) {
    if (!names.ok()) return names.status();
    return std::optional<std::string>();
  }
  // A beginning of ids; hexadecimal digits need no escaping in LIKE.
  sqlite::Statement rows = CRISP_TRY(
      reader_.Prepare("SELECT id FROM images WHERE condemned = 0 AND id LIKE ?1 || '%' LIMIT 2"));
  rows.Bind(1, "sha256:" + hex);
  if (!CRISP_TRY(rows.Step())) return std::optional<std::string>();
  std::string id = rows.Text(0);
  if (CRISP_TRY(rows.Step()))
    return InvalidArgument("{} is the beginning of several images' ids", given);
  return std::optional<std::string>(std::move(id));
}

Result<std::string> Catalogue::Config(const std::string& id) {
  const std::lock_guard lock(read_mutex_);
  auto config = CRISP_TRY(OneText(reader_, "SELECT config FROM images WHERE id = ?1", id));
  if (!config) return NotFound("no image {}", id);
  return std::move(*config);
}

Result<std::vector<digest::Digest>> Catalogue::Layers(const std::string& id) {
  const std::lock_guard lock(read_mutex_);
  sqlite::Statement rows = CRISP_TRY(
      reader_.Prepare("SELECT chain FROM image_layers WHERE image = ?1 ORDER BY position"));
  rows.Bind(1, id);
  std::vector<digest::Digest> chain;
  while (CRISP_TRY(rows.Step())) chain.push_back(CRISP_TRY(digest::Digest::Parse(rows.Text(0))));
  return chain;
}

Result<std::vector<std::string>> Catalogue::Signatures(const std::string& id) {
  const std::lock_guard lock(read_mutex_);
  sqlite::Statement rows = CRISP_TRY(
      reader_.Prepare("SELECT DISTINCT data FROM signatures WHERE image = ?1 ORDER BY data"));
  rows.Bind(1, id);
  std::vector<std::string> signatures;
  while (CRISP_TRY(rows.Step())) signatures.push_back(rows.Text(0));
  return signatures;
}

Result<bool> Catalogue::HasLayer(const digest::Digest& chain) {
  const std::lock_guard lock(read_mutex_);
  const auto found =
      CRISP_TRY(OneText(reader_, "SELECT chain FROM layers WHERE chain = ?1", chain.str()));
  return found.has_value();
}

Status Catalogue::AddLayerRow(const LayerRecord& layer, std::int64_t keep_until) {
  sqlite::Statement add = CRISP_TRY(
      db_.Prepare("INSERT INTO layers (chain, diff_id, bytes, inodes, keep_until, unsynced_boot) "
                  "VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING"));
  add.Bind(1, layer.chain.str()).Bind(2, layer.diff_id.str());
  add.Bind(3, static_cast<std::int64_t>(layer.bytes));
  add.Bind(4, static_cast<std::int64_t>(layer.inodes)).Bind(5, keep_until);
  add.Bind(6, boot_id_);
  return add.Run();
}

Status Catalogue::AddLayers(const std::vector<LayerRecord>& layers, WallTime keep_until) {
  const std::lock_guard lock(mutex_);
  sqlite::Transaction transaction = CRISP_TRY(sqlite::Transaction::Begin(db_));
  for (const LayerRecord& layer : layers) CRISP_TRY(AddLayerRow(layer, Stamp(keep_until)));
  return transaction.Commit();
}

Status Catalogue::AddSignatures(const NewImage& image) {
  sqlite::Statement forget =
      CRISP_TRY(db_.Prepare("DELETE FROM signatures WHERE image = ?1 AND name = ?2"));
  forget.Bind(1, image.id).Bind(2, image.pulled_as);
  CRISP_TRY(forget.Run());
  sqlite::Statement add = CRISP_TRY(db_.Prepare(
      "INSERT INTO signatures (image, name, data) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING"));
  for (const std::string& signature : image.signatures) {
    add.Reset();
    add.Bind(1, image.id).Bind(2, image.pulled_as).Bind(3, signature);
    CRISP_TRY(add.Run());
  }
  return Status::Ok();
}

Status Catalogue::CommitImage(const NewImage& image, WallTime now) {
  const std::lock_guard lock(mutex_);
  sqlite::Transaction transaction = CRISP_TRY(sqlite::Transaction::Begin(db_));
  for (const LayerRecord& layer : image.fresh_layers) CRISP_TRY(AddLayerRow(layer, 0));
  {
    sqlite::Statement add = CRISP_TRY(db_.Prepare(
        "INSERT INTO images (id, config, uid, username, created, annotations) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6) "
        "ON CONFLICT (id) DO UPDATE SET condemned = 0, annotations = excluded.annotations"));
    add.Bind(1, image.id).Bind(2, sqlite::Blob{image.config});
    if (image.uid) add.Bind(3, *image.uid);
    add.Bind(4, image.username).Bind(5, Stamp(now)).Bind(6, AnnotationsText(image.annotations));
    CRISP_TRY(add.Run());
  }
  sqlite::Statement link =
      CRISP_TRY(db_.Prepare("INSERT INTO image_layers (image, position, chain) "
                            "SELECT ?1, ?2, chain FROM layers WHERE chain = ?3 "
                            "ON CONFLICT DO UPDATE SET chain = excluded.chain"));
  sqlite::Statement used =
      CRISP_TRY(db_.Prepare("UPDATE layers SET keep_until = 0 WHERE chain = ?1"));
  for (std::size_t i = 0; i < image.chain.size(); ++i) {
    link.Reset();
    link.Bind(1, image.id).Bind(2, static_cast<std::int64_t>(i)).Bind(3, image.chain[i].str());
    CRISP_TRY(link.Run());
    if (db_.Changes() != 1)
      return Aborted("layer {} was collected while the image was pulled", image.chain[i].str());
    used.Reset();
    used.Bind(1, image.chain[i].str());
    CRISP_TRY(used.Run());
  }
  CRISP_TRY(AddSignatures(image));
  sqlite::Statement name =
      CRISP_TRY(db_.Prepare("INSERT INTO names (name, image, kind) VALUES (?1, ?2, ?3) "
                            "ON CONFLICT (name) DO UPDATE SET image = excluded.image, "
                            "kind = min(kind, excluded.kind)"));
  const auto add_name = [&](const std::string& text, const char* kind) {
    name.Reset();
    name.Bind(1, text).Bind(2, image.id).Bind(3, kind);
    return name.Run();
  };
  if (!image.tag.empty()) CRISP_TRY(add_name(image.tag, "tag"));
  for (const std::string& each : image.digests) CRISP_TRY(add_name(each, "digest"));
  if (!image.chosen.empty()) CRISP_TRY(add_name(image.chosen, "manifest"));
  return transaction.Commit();
}

Result<bool> Catalogue::RemoveImage(const std::string& id) {
  const std::lock_guard lock(mutex_);
  sqlite::Transaction transaction = CRISP_TRY(sqlite::Transaction::Begin(db_));
  const auto run = [&](std::string_view sql) -> Result<std::int64_t> {
    sqlite::Statement statement = CRISP_TRY(db_.Prepare(sql));
    statement.Bind(1, id);
    CRISP_TRY(statement.Run());
    return db_.Changes();
  };
  CRISP_TRY(run("DELETE FROM names WHERE image = ?1"));
  std::int64_t changed = CRISP_TRY(
      run("DELETE FROM images WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM snapshots WHERE image = "
          "?1)"));
  if (changed == 0)
    changed = CRISP_TRY(run("UPDATE images SET condemned = 1 WHERE id = ?1 AND condemned = 0"));
  CRISP_TRY(transaction.Commit());
  return changed > 0;
}

Result<std::optional<SnapshotRecord>> Catalogue::FindSnapshot(const OwnerId& owner) {
  const std::lock_guard lock(read_mutex_);
  sqlite::Statement row =
      CRISP_TRY(reader_.Prepare("SELECT image, created FROM snapshots WHERE owner = ?1"));
  row.Bind(1, owner.str());
  if (!CRISP_TRY(row.Step())) return std::optional<SnapshotRecord>();
  return std::optional<SnapshotRecord>(SnapshotRecord{owner, row.Text(0), FromStamp(row.Int(1))});
}

Result<std::vector<SnapshotRecord>> Catalogue::ListSnapshots() {
  const std::lock_guard lock(read_mutex_);
  sqlite::Statement rows =
      CRISP_TRY(reader_.Prepare("SELECT owner, image, created FROM snapshots ORDER BY owner"));
  std::vector<SnapshotRecord> snapshots;
  while (CRISP_TRY(rows.Step()))
    snapshots.push_back({OwnerId(rows.Text(0)), rows.Text(1), FromStamp(rows.Int(2))});
  return snapshots;
}

Result<std::vector<SnapshotRecord>> Catalogue::SnapshotsFrom(const std::string& prefix) {
  const std::lock_guard lock(read_mutex_);
  std::string after = prefix;  // the least text that is behind all that begin with it
  ++after.back();
  sqlite::Statement rows = CRISP_TRY(reader_.Prepare(
      "SELECT owner, image, created FROM snapshots WHERE owner >= ?1 AND owner < ?2"));
  rows.Bind(1, prefix).Bind(2, after);
  std::vector<SnapshotRecord> snapshots;
  while (CRISP_TRY(rows.Step()))
    snapshots.push_back({OwnerId(rows.Text(0)), rows.Text(1), FromStamp(rows.Int(2))});
  return snapshots;
}

Status Catalogue::AddSnapshot(const SnapshotRecord& snapshot) {
  const std::lock_guard lock(mutex_);
  sqlite::Statement add =
      CRISP_TRY(db_.Prepare("INSERT INTO snapshots (owner, image, created) "
                            "SELECT ?1, id, ?3 FROM images WHERE id = ?2 AND condemned = 0"));
  add.Bind(1, snapshot.owner.str()).Bind(2, snapshot.image_id).Bind(3, Stamp(snapshot.created));
  CRISP_TRY(add.Run());
  if (db_.Changes() != 1) return NotFound("no image {}", snapshot.image_id);
  return Status::Ok();
}

Status Catalogue::RemoveSnapshot(const OwnerId& owner) {
  const std::lock_guard lock(mutex_);
  sqlite::Transaction transaction = CRISP_TRY(sqlite::Transaction::Begin(db_));
  {
    sqlite::Statement remove = CRISP_TRY(db_.Prepare("DELETE FROM snapshots WHERE owner = ?1"));
    remove.Bind(1, owner.str());
    CRISP_TRY(remove.Run());
  }
  CRISP_TRY(
      db_.Exec("DELETE FROM images WHERE condemned = 1 AND NOT EXISTS "
               "(SELECT 1 FROM snapshots WHERE image = images.id)"));
  return transaction.Commit();
}

Result<std::vector<digest::Digest>> Catalogue::UnusedLayers(WallTime now) {
  const std::lock_guard lock(read_mutex_);
  sqlite::Statement rows =
      CRISP_TRY(reader_.Prepare("SELECT chain FROM layers WHERE keep_until < ?1 AND NOT EXISTS "
                                "(SELECT 1 FROM image_layers il WHERE il.chain = layers.chain)"));
  rows.Bind(1, Stamp(now));
  std::vector<digest::Digest> unused;
  while (CRISP_TRY(rows.Step())) unused.push_back(CRISP_TRY(digest::Digest::Parse(rows.Text(0))));
  return unused;
}

Result<bool> Catalogue::IsTop(const digest::Digest& chain) {
  const std::lock_guard lock(read_mutex_);
  sqlite::Statement row = CRISP_TRY(reader_.Prepare(
      "SELECT 1 FROM image_layers top WHERE chain = ?1 AND NOT EXISTS (SELECT 1 FROM image_layers "
      "il WHERE il.image = top.image AND il.position > top.position)"));
  row.Bind(1, chain.str());
  return row.Step();
}

Result<std::vector<CatalogueLayer>> Catalogue::AllLayers() {
  const std::lock_guard lock(read_mutex_);
  sqlite::Statement rows = CRISP_TRY(
      reader_.Prepare("SELECT chain, bytes, inodes, tree, checked FROM layers ORDER BY chain"));
  std::vector<CatalogueLayer> layers;
  while (CRISP_TRY(rows.Step())) {
    CatalogueLayer layer;
    layer.chain = CRISP_TRY(digest::Digest::Parse(rows.Text(0)));
    layer.bytes = static_cast<std::uint64_t>(rows.Int(1));
    layer.inodes = static_cast<std::uint64_t>(rows.Int(2));
    layer.tree = rows.Text(3);
    layer.checked = FromStamp(rows.Int(4));
    layers.push_back(std::move(layer));
  }
  return layers;
}

Status Catalogue::SetChecked(const digest::Digest& chain, const std::string& tree, WallTime when) {
  const std::lock_guard lock(mutex_);
  sqlite::Statement set =
      CRISP_TRY(db_.Prepare("UPDATE layers SET tree = ?2, checked = ?3 WHERE chain = ?1"));
  set.Bind(1, chain.str()).Bind(2, tree).Bind(3, Stamp(when));
  return set.Run();
}

Result<std::vector<std::string>> Catalogue::ForgetLayer(const digest::Digest& chain) {
  const std::lock_guard lock(mutex_);
  const Cleanup synced = CRISP_TRY(SyncEachCommit());
  sqlite::Transaction transaction = CRISP_TRY(sqlite::Transaction::Begin(db_));
  std::vector<std::string> images;
  {
    sqlite::Statement rows =
        CRISP_TRY(db_.Prepare("SELECT DISTINCT image FROM image_layers WHERE chain = ?1"));
    rows.Bind(1, chain.str());
    while (CRISP_TRY(rows.Step())) images.push_back(rows.Text(0));
  }
  for (const std::string& image : images) {
    if (CRISP_TRY(OneText(db_, "SELECT owner FROM snapshots WHERE image = ?1 LIMIT 1", image)))
      return FailedPrecondition("a container stands on image {}", image);
    sqlite::Statement drop = CRISP_TRY(db_.Prepare("DELETE FROM images WHERE id = ?1"));
    drop.Bind(1, image);
    CRISP_TRY(drop.Run());
  }
  {
    sqlite::Statement drop = CRISP_TRY(db_.Prepare("DELETE FROM layers WHERE chain = ?1"));
    drop.Bind(1, chain.str());
    CRISP_TRY(drop.Run());
  }
  CRISP_TRY(transaction.Commit());
  return images;
}

Status Catalogue::CheckIntegrity() {
  const std::lock_guard lock(read_mutex_);
  sqlite::Statement rows = CRISP_TRY(reader_.Prepare("PRAGMA quick_check(1)"));
  if (!CRISP_TRY(rows.Step())) return Status::Ok();
  const std::string words = rows.Text(0);
  return words == "ok" ? Status::Ok() : DataLoss("the catalogue is damaged: {}", words);
}

Result<std::vector<digest::Digest>> Catalogue::UnsyncedLayers() {
  const std::lock_guard lock(read_mutex_);
  sqlite::Statement rows =
      CRISP_TRY(reader_.Prepare("SELECT chain FROM layers WHERE unsynced_boot <> ''"));
  std::vector<digest::Digest> chain;
  while (CRISP_TRY(rows.Step())) chain.push_back(CRISP_TRY(digest::Digest::Parse(rows.Text(0))));
  return chain;
}

Status Catalogue::MarkSynced(const std::vector<digest::Digest>& layers) {
  const std::lock_guard lock(mutex_);
  sqlite::Transaction transaction = CRISP_TRY(sqlite::Transaction::Begin(db_));
  sqlite::Statement mark =
      CRISP_TRY(db_.Prepare("UPDATE layers SET unsynced_boot = '' WHERE chain = ?1"));
  for (const digest::Digest& chain : layers) {
    mark.Reset();
    mark.Bind(1, chain.str());
    CRISP_TRY(mark.Run());
  }
  return transaction.Commit();
}

Result<std::int64_t> Catalogue::DropDoubtful() {
  const std::lock_guard lock(mutex_);
  sqlite::Transaction transaction = CRISP_TRY(sqlite::Transaction::Begin(db_));
  constexpr std::string_view kDoubtful =
      "IN (SELECT il.image FROM image_layers il JOIN layers l ON l.chain = il.chain "
      "WHERE l.unsynced_boot NOT IN ('', ?1))";
  std::int64_t dropped = 0;
  for (const std::string& sql :
       {fmt::format("DELETE FROM snapshots WHERE image {}", kDoubtful),
        fmt::format("DELETE FROM images WHERE id {}", kDoubtful),
        std::string("DELETE FROM layers WHERE unsynced_boot NOT IN ('', ?1)")}) {
    sqlite::Statement statement = CRISP_TRY(db_.Prepare(sql));
    statement.Bind(1, boot_id_);
    CRISP_TRY(statement.Run());
    dropped = db_.Changes();
  }
  CRISP_TRY(transaction.Commit());
  return dropped;
}

Result<Cleanup> Catalogue::SyncEachCommit() {
  CRISP_TRY(db_.Exec("PRAGMA synchronous = FULL"));
  return Cleanup([this] {
    // Staying with it would cost time only.
    static_cast<void>(db_.Exec("PRAGMA synchronous = NORMAL").ok());
  });
}

Result<std::vector<digest::Digest>> Catalogue::DropLayers(
    const std::vector<digest::Digest>& layers) {
  if (layers.empty()) return std::vector<digest::Digest>();
  const std::lock_guard lock(mutex_);
  const Cleanup synced = CRISP_TRY(SyncEachCommit());
  sqlite::Transaction transaction = CRISP_TRY(sqlite::Transaction::Begin(db_));
  std::vector<digest::Digest> dropped;
  {
    sqlite::Statement drop =
        CRISP_TRY(db_.Prepare("DELETE FROM layers WHERE chain = ?1 AND NOT EXISTS "
                              "(SELECT 1 FROM image_layers il WHERE il.chain = ?1)"));
    for (const digest::Digest& chain : layers) {
      drop.Reset();
      drop.Bind(1, chain.str());
      CRISP_TRY(drop.Run());
      if (db_.Changes() > 0) dropped.push_back(chain);
    }
  }
  CRISP_TRY(transaction.Commit());
  return dropped;
}

Result<Catalogue::Totals> Catalogue::Sum() {
  const std::lock_guard lock(read_mutex_);
  sqlite::Statement row = CRISP_TRY(reader_.Prepare(
      "SELECT coalesce(sum(bytes), 0), coalesce(sum(inodes), 0), "
      "(SELECT count(*) FROM images WHERE condemned = 0), count(*), "
      "(SELECT count(*) FROM snapshots), (SELECT coalesce(sum(length(config)), 0) FROM images) "
      "FROM layers"));
  CRISP_TRY(row.Step());
  Totals totals;
  totals.bytes = static_cast<std::uint64_t>(row.Int(0) + row.Int(5));
  totals.inodes = static_cast<std::uint64_t>(row.Int(1));
  totals.images = row.Int(2);
  totals.layers = row.Int(3);
  totals.snapshots = row.Int(4);
  return totals;
}

}  // namespace crisp::imaged
