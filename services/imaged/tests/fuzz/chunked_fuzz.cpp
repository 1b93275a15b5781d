// What a registry says beside the tar of a zstd:chunked layer: its table of files, its tar-split
// and the annotations that tell where they are; and the index that the store keeps of such tables.
// The first byte says which, in lower case for plain text that is compressed here.
#include <zstd.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/os/temp_dir.h"
#include "services/imaged/core/chunked.h"
#include "services/imaged/store/file_index.h"

namespace {

using namespace crisp::imaged;

std::string Compressed(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  const std::size_t size = ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 1);
  if (ZSTD_isError(size) != 0U) std::abort();
  out.resize(size);
  return out;
}

void FuzzToc(std::string_view toc) {
  FileIndexWriter index;
  static_cast<void>(ReadToc(toc, [&index](const TocFile& file) {
                      index.Add(file.digest, file.size, file.name);
                      return crisp::Status::Ok();
                    }).ok());
}

void FuzzTarSplit(std::string_view text) {
  TarSplitReader reader(text);
  TarSplitReader::Item item;
  std::size_t bytes = 0;
  while (reader.Next(item).value_or(false)) bytes += item.bytes.size() + (item.file_size > 0);
  if (bytes > std::size_t{1} << 32U) std::abort();
}

void FuzzIndex(std::string_view bytes) {
  static const crisp::os::TempDir kTemp = *crisp::os::TempDir::Create("/tmp/crisp-fuzz-");
  const std::string path = kTemp.path() + "/files";
  if (!crisp::os::WriteFile(path, bytes).ok()) std::abort();
  std::vector<WantedFile> wanted(3);
  wanted[1].digest.fill('a');
  wanted[1].size = 1;
  wanted[2].digest.fill(0xff);
  static_cast<void>(LookUpFiles(path, wanted, [](std::size_t number, const std::string& name) {
                      if (number > 2 || name.size() > 4096) std::abort();
                    }).ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 't': FuzzToc(Compressed(text)); break;
    case 'T': FuzzToc(text); break;
    case 's': FuzzTarSplit(Compressed(text)); break;
    case 'S': FuzzTarSplit(text); break;
    case 'a': {
      const auto annotations = crisp::json::Parse(text);
      constexpr std::uint64_t kBlob = 100'000;
      if (!annotations.ok()) break;
      const auto places = ParseChunkedPlaces(*annotations, kBlob);
      if (places && (places->toc.from + places->toc.size > kBlob ||
                     places->tar_split.from + places->tar_split.size > kBlob))
        std::abort();
      break;
    }
    case 'i': FuzzIndex(text); break;
    default: break;
  }
  return 0;
}
