// SHA-256 (FIPS 180-4), by OpenSSL's libcrypto.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace sagejit {

using Digest = std::array<uint8_t, 32>;

// The digest of the parts, one after another.
Digest sha256(std::span<const std::string_view> parts);
Digest sha256(std::string_view bytes);

// 64 lower-case hexadecimal digits.
std::string to_hex(const Digest& digest);

}  // namespace sagejit
