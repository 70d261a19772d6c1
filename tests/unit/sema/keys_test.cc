#include "compiler/sema/keys.h"

#include <set>

#include "compiler/sema/resolve.h"
#include "tests/support/catch.h"

namespace sagejit {

TEST_CASE("key names are unique and found") {
  std::set<std::string_view> seen;
  for (const Key& key : all_keys()) {
    CHECK(seen.insert(key.name).second);
    CHECK(find_key(key.name) == &key);
    CHECK(&all_keys()[place_of(key)] == &key);
  }
  CHECK(find_key("head_dims") == nullptr);
  CHECK(key_names().size() == all_keys().size());
}

TEST_CASE("what a key prints, it reads, whatever the others are") {
  const Variant v =
      resolve_variants("t",
                       "x { head_dim = 128; value_head_dim = 64; q = fp4\n"
                       "v = e5m2 per block(32) range 7; smooth_q = mean per block(64)\n"
                       "mask = window(1, 2); structure = split_kv(3) }")
          .at(0);
  for (const Key& key : all_keys()) {
    INFO(key.name);
    const std::vector<Override> same{{std::string(key.name), key.print(v)}};
    const Variant again =
        resolve_variants("t",
                         "x { head_dim = 128; value_head_dim = 64; q = fp4\n"
                         "v = e5m2 per block(32) range 7; smooth_q = mean per block(64)\n"
                         "mask = window(1, 2); structure = split_kv(3) }",
                         same)
            .at(0);
    CHECK(again == v);
  }
}

TEST_CASE("defaults print what their description says, where it is literal") {
  const Variant v = resolve_variants("t", "x { head_dim = 64 }").at(0);
  for (const std::string_view name :
       {"input", "lse", "smooth_q", "smooth_k", "hadamard", "scale", "softcap", "alibi", "sinks",
        "score", "mask", "smooth_v", "row_sum", "exp2_polynomial", "structure", "q"}) {
    const Key& key = *find_key(name);
    INFO(name);
    CHECK(key.print(v) == key.otherwise);
  }
}

}  // namespace sagejit
