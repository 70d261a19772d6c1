// What a variant may be: contradictions, which are wrong for every target, and limits of today's
// generators.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "compiler/sema/variant.h"
#include "compiler/target/target.h"
#include "compiler/target/throughput.h"

namespace sagejit {

struct Contradiction {
  std::string_view key;  // the key at fault
  std::vector<std::string_view>
      involved;               // the others it clashes with; empty: the value is wrong by itself
  bool about_number = false;  // the value's last number is at fault, not the whole of it
  std::string message;
  std::string note;  // the nearest that works
};

// Every contradiction of the variant; empty for a valid one. The resolver reports them with their
// place.
std::vector<Contradiction> find_contradictions(const Variant& variant);

// For variants that were not read from a text: throws Error{kSpec} listing every contradiction.
void check_valid(const Variant& variant);

// What the (valid) variant is beyond of the limits of the generators for this target, `key = value:
// limit` each; empty: it is supported.
std::vector<std::string> find_limits(const Variant& variant, const Target& target);

// Throws Error{kUnsupported} if the generators for this target do not make the (valid) variant:
// names every limit it is beyond, and the lines to change to get the nearest variant that is
// supported.
void check_supported(const Variant& variant, const Target& target);

// That nearest variant; the variant itself if it is supported.
Variant nearest_supported(const Variant& variant, const Target& target);

// What a supported variant loses on this target that its keys do not tell, and the line to write
// instead: one text each, caution_about_speed's among them.
std::vector<std::string> cautions_about(const Variant& variant, const Target& target);

// Products of 8-bit codes that the tensor cores make slower than those of 16 bits, or of Q and K in
// e4m3 than of int8, and what to do instead; empty: none. Not about int4, of which cautions_about
// says where it gains nothing.
std::string caution_about_speed(const Variant& variant, const Throughput& throughput);

}  // namespace sagejit
