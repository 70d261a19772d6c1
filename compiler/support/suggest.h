// The word a user probably meant.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace sagejit {

// The candidate nearest to `word` (insertions, deletions, substitutions, swaps of neighbours; case
// counts little), or an empty view where none is near enough to be worth saying.
std::string_view nearest_word(std::string_view word, std::span<const std::string_view> candidates);

// "did you mean `head_dim`?", or an empty text.
std::string did_you_mean(std::string_view word, std::span<const std::string_view> candidates);

// "a", "a or b", "a, b or c".
std::string list_words(std::span<const std::string_view> words,
                       std::string_view conjunction = "or");

}  // namespace sagejit
