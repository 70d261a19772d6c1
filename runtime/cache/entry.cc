#include "runtime/cache/entry.h"

#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "compiler/support/error.h"
#include "runtime/cache/artifact_json.h"
#include "runtime/cache/sha256.h"

namespace sagejit {
namespace {

static_assert(std::endian::native == std::endian::little, "entries are little-endian");

constexpr std::array<char, 8> kMagic = {'S', 'A', 'G', 'E', 'J', 'I', 'T', '\n'};

// The start of the file; then come the sections, one after another.
struct Header {
  std::array<char, 8> magic;
  uint32_t format_version;
  uint32_t header_bytes;
  std::array<uint64_t, 5> section_bytes;  // request, toolchain, metadata, PTX, machine code
  Digest digest;  // SHA-256 of the header above this field, then the sections
};
static_assert(sizeof(Header) == 88);

std::string_view bytes_of(const Header& header) {
  return {reinterpret_cast<const char*>(&header), sizeof(Header)};
}

Digest digest_of(const Header& header, std::string_view sections) {
  const std::array parts = {bytes_of(header).substr(0, offsetof(Header, digest)), sections};
  return sha256(parts);
}

std::string_view take(std::string_view& rest, uint64_t bytes) {
  const std::string_view section = rest.substr(0, bytes);
  rest.remove_prefix(section.size());
  return section;
}

// Reads sections whose digest is right.
DecodedEntry decode_sections(const Header& header, std::string_view rest) {
  DecodedEntry entry;
  entry.key.request = take(rest, header.section_bytes[0]);
  entry.key.toolchain = take(rest, header.section_bytes[1]);
  const std::string_view metadata = take(rest, header.section_bytes[2]);
  const std::string_view ptx = take(rest, header.section_bytes[3]);
  entry.artifact = artifact_from_json(nlohmann::json::parse(metadata), {.ptx = ptx, .cubin = rest});
  return entry;
}

bool lengths_add_up(const Header& header, size_t payload_bytes) {
  uint64_t left = payload_bytes;
  for (const uint64_t bytes : header.section_bytes) {
    if (bytes > left) return false;
    left -= bytes;
  }
  return left == 0;
}

}  // namespace

std::string encode_entry(const CacheKey& key, const Artifact& artifact) {
  const std::string metadata =
      to_json(artifact).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string ptx, cubin;
  for (const KernelModule& module : artifact.modules) {
    ptx += module.ptx;
    cubin.append(module.cubin.begin(), module.cubin.end());
  }
  Header header = {.magic = kMagic,
                   .format_version = kEntryFormatVersion,
                   .header_bytes = sizeof(Header),
                   .section_bytes = {key.request.size(), key.toolchain.size(), metadata.size(),
                                     ptx.size(), cubin.size()},
                   .digest = {}};
  std::string file(sizeof(Header), '\0');
  file += key.request;
  file += key.toolchain;
  file += metadata;
  file += ptx;
  file += cubin;
  header.digest = digest_of(header, std::string_view(file).substr(sizeof(Header)));
  std::memcpy(file.data(), &header, sizeof(Header));
  return file;
}

std::optional<DecodedEntry> decode_entry(std::string_view bytes, std::string& why_not) {
  const auto reject = [&](std::string reason) -> std::optional<DecodedEntry> {
    why_not = std::move(reason);
    return std::nullopt;
  };
  Header header;
  if (bytes.size() < sizeof(Header)) return reject("it is shorter than a header");
  std::memcpy(&header, bytes.data(), sizeof(Header));
  if (header.magic != kMagic) return reject("it is not a cache entry");
  if (header.format_version != kEntryFormatVersion || header.header_bytes != sizeof(Header)) {
    return reject(fmt::format("it has format version {}, not {}", header.format_version,
                              kEntryFormatVersion));
  }
  const std::string_view sections = bytes.substr(sizeof(Header));
  if (!lengths_add_up(header, sections.size())) return reject("it is torn: its length is wrong");
  if (digest_of(header, sections) != header.digest)
    return reject("it is damaged: its SHA-256 is wrong");
  // A right digest on wrong contents is a foreign writer's doing; that too is a miss and no error.
  try {
    return decode_sections(header, sections);
  } catch (const nlohmann::json::exception& error) {
    return reject(fmt::format("its metadata is wrong: {}", error.what()));
  } catch (const Error& error) {
    return reject(fmt::format("its metadata is wrong: {}", error.message()));
  }
}

}  // namespace sagejit
