#include "runtime/policy/policy.h"

#include "compiler/sema/print.h"
#include "runtime/api/handles.h"

using namespace sagejit;  // NOLINT: the functions below are C
using namespace sagejit::api;

extern "C" {

sagejit_status sagejit_policy_parse(const char* text, size_t bytes, const char* file_name,
                                    sagejit_policy** out, sagejit_error** err) {
  return guarded(err, [&] {
    clear_out(out);
    if (bytes) required(text, "text");
    *out = new sagejit_policy{
        parse_policy(text_or(file_name, "<policy>"), std::string_view(text ? text : "", bytes))};
  });
}

void sagejit_policy_destroy(sagejit_policy* policy) {
  delete policy;
}

sagejit_status sagejit_policy_find(const sagejit_policy* policy, const char* layer, int64_t step,
                                   sagejit_variant** out, sagejit_error** err) {
  return guarded(err, [&] {
    clear_out(out);
    const Policy& rules = required(policy, "policy").impl;
    if (step < 0) fail(ErrorKind::kArgument, "step is {}: steps count from 0", step);
    const Variant& variant = rules.find(&required(layer, "layer"), step);
    *out = new sagejit_variant{make_request(variant), print_variant(variant)};
  });
}

}  // extern "C"
