#include <cstddef>

#include "compiler/sema/print.h"
#include "compiler/sema/resolve.h"
#include "runtime/api/handles.h"

namespace sagejit::api {
namespace {

constexpr uint32_t kKnownFlags = SAGEJIT_NO_JIT | SAGEJIT_NO_DISK_CACHE | SAGEJIT_VERIFY_CACHE;

ContextOptions read_options(const sagejit_context_options* given) {
  if (!given) return {};
  const auto options = read_struct(given, offsetof(sagejit_context_options, backend), "options");
  if (options.flags & ~kKnownFlags) {
    fail(ErrorKind::kArgument, "options.flags is {:#x}: bits {:#x} are not known", options.flags,
         options.flags & ~kKnownFlags);
  }
  const char* cache_dir = text_or(options.cache_dir, "");
  if (*cache_dir && *cache_dir != '/') {
    fail(ErrorKind::kArgument, "options.cache_dir is '{}': pass an absolute path", cache_dir);
  }
  Log log;
  if (options.log) {
    log = Log([callback = options.log, user = options.log_user](LogLevel level,
                                                                const std::string& message) {
      callback(user, static_cast<int>(level), message.c_str());
    });
  }
  return {.compile = !(options.flags & SAGEJIT_NO_JIT),
          .disk_cache = !(options.flags & SAGEJIT_NO_DISK_CACHE),
          .verify_cache = (options.flags & SAGEJIT_VERIFY_CACHE) != 0,
          .cache_dir = cache_dir,
          .toolchain = {.backend = backend_named(text_or(options.backend, ""), "options.backend"),
                        .assembler =
                            assembler_named(text_or(options.assembler, ""), "options.assembler"),
                        .nvrtc = text_or(options.nvrtc, ""),
                        .ptxas = text_or(options.ptxas, "")},
          .log = std::move(log)};
}

std::vector<Override> read_overrides(const sagejit_variant_options& options) {
  std::vector<Override> overrides;
  if (options.num_overrides) required(options.overrides, "options.overrides");
  for (uint32_t i = 0; i < options.num_overrides; ++i) {
    if (!options.overrides[i]) fail(ErrorKind::kArgument, "options.overrides[{}] is null", i);
    overrides.push_back(parse_override(options.overrides[i]));
  }
  return overrides;
}

Variant parse_one(const Log& log, std::string_view text, const sagejit_variant_options& options) {
  const std::vector<Override> overrides = read_overrides(options);
  Resolved resolved = resolve_file(text_or(options.file_name, "<variant>"), text, overrides);
  for (const std::string& warning : resolved.warnings) log.warn(warning);
  const char* selector = text_or(options.selector, "");
  std::vector<Variant> variants = select_variants(std::move(resolved.variants), selector);
  if (variants.size() != 1) {
    std::string names;
    for (const Variant& variant : variants) names += "\n  " + variant.name;
    fail(ErrorKind::kArgument, "{} variants are meant; choose one with options.selector:{}",
         variants.size(), names);
  }
  return std::move(variants.front());
}

}  // namespace
}  // namespace sagejit::api

using namespace sagejit;  // NOLINT: the functions below are C
using namespace sagejit::api;

extern "C" {

sagejit_status sagejit_context_create(const sagejit_context_options* options, sagejit_context** out,
                                      sagejit_error** err) {
  return guarded(err, [&] {
    clear_out(out);
    *out =
        new sagejit_context{std::make_unique<Context>(read_options(options), Environment::read())};
  });
}

void sagejit_context_destroy(sagejit_context* context) {
  delete context;
}

sagejit_status sagejit_context_counters(const sagejit_context* context, sagejit_counters* out) {
  return guarded(nullptr, [&] {
    const Counters counters = required(context, "context").impl->counters();
    sagejit_counters result = read_struct(out, sizeof(sagejit_counters), "out");
    result.memory_hits = counters.memory_hits;
    result.disk_hits = counters.disk_hits;
    result.misses = counters.misses;
    result.compiles = counters.compiles;
    result.stores = counters.stores;
    *out = result;
  });
}

sagejit_status sagejit_variant_parse(const sagejit_context* context, const char* text, size_t bytes,
                                     const sagejit_variant_options* options, sagejit_variant** out,
                                     sagejit_error** err) {
  return guarded(err, [&] {
    clear_out(out);
    const Log& log = required(context, "context").impl->log();
    if (bytes) required(text, "text");
    sagejit_variant_options known = {};
    if (options) known = read_struct(options, sizeof(sagejit_variant_options), "options");
    Variant variant = parse_one(log, std::string_view(text ? text : "", bytes), known);
    std::string canonical = print_variant(variant);
    *out = new sagejit_variant{make_request(std::move(variant)), std::move(canonical)};
  });
}

void sagejit_variant_destroy(sagejit_variant* variant) {
  delete variant;
}

const char* sagejit_variant_name(const sagejit_variant* variant) {
  return variant ? variant->request.variant.name.c_str() : nullptr;
}

const char* sagejit_variant_text(const sagejit_variant* variant) {
  return variant ? variant->text.c_str() : nullptr;
}

}  // extern "C"
