// A cache entry: one artifact and the key it was made for, as the bytes of one file.
//
// Format: specs/cache_format.md. The digest covers every byte but itself, so a flipped bit
// anywhere, a truncation or trailing bytes are noticed.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "compiler/artifact.h"

namespace sagejit {

inline constexpr uint32_t kEntryFormatVersion = 4;

// What an artifact is looked up by. Artifacts of one request made by different toolchains do the
// same, and are kept apart.
struct CacheKey {
  std::string request;    // request_key_text() of compiler/compile.h
  std::string toolchain;  // toolchain_key_text(); in a look-up "": whoever made it
  bool operator==(const CacheKey&) const = default;
};

std::string encode_entry(const CacheKey& key, const Artifact& artifact);

struct DecodedEntry {
  CacheKey key;
  Artifact artifact;
};

// Empty with the reason in `why_not` if the bytes are not a whole entry of this format version.
// Throws nothing but std::bad_alloc, whatever the bytes.
std::optional<DecodedEntry> decode_entry(std::string_view bytes, std::string& why_not);

}  // namespace sagejit
