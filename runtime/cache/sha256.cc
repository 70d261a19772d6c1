// The plain SHA256_* functions need a few kilobytes of the static libcrypto; the EVP interface that
// deprecates them would pull in most of it.
#define OPENSSL_API_COMPAT 0x10101000L
#include "runtime/cache/sha256.h"

#include <fmt/format.h>
#include <openssl/sha.h>

namespace sagejit {

Digest sha256(std::span<const std::string_view> parts) {
  SHA256_CTX state;
  SHA256_Init(&state);
  for (const std::string_view part : parts) SHA256_Update(&state, part.data(), part.size());
  Digest digest;
  SHA256_Final(digest.data(), &state);
  return digest;
}

Digest sha256(std::string_view bytes) {
  return sha256(std::span(&bytes, 1));
}

std::string to_hex(const Digest& digest) {
  std::string text;
  for (const uint8_t byte : digest) fmt::format_to(std::back_inserter(text), "{:02x}", byte);
  return text;
}

}  // namespace sagejit
