// Digests, entries, the private directory and the disk cache.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "compiler/support/stopwatch.h"
#include "runtime/cache/entry.h"
#include "tests/support/catch.h"
#include "tests/unit/runtime/fakes.h"

namespace sagejit::testing {
namespace {

namespace fs = std::filesystem;

const CacheKey kKey = {"the request", "by x"};

Artifact full_artifact() {
  Artifact artifact = toy_artifact();
  artifact.modules = {{"toy_prepare", "// ptx\n", {0x7f, 'E', 'L', 'F', 0, 255}},
                      {"toy_attend", "// another\n", {0, 1}}};
  artifact.resources = {{"toy_attend", 24, 0, 0, 8, 1024}};
  artifact.assembler_log = "ptxas info\nline \"two\"";
  artifact.tensors.output = DType::kBF16;
  return artifact;
}

void check_same(const Artifact& a, const Artifact& b) {
  CHECK(a.variant_name == b.variant_name);
  CHECK(a.variant_text == b.variant_text);
  CHECK(a.schedule_text == b.schedule_text);
  CHECK(a.target == b.target);
  CHECK(a.backend == b.backend);
  CHECK(a.tensors == b.tensors);
  CHECK(a.plan == b.plan);
  CHECK(a.modules == b.modules);
  CHECK(a.resources == b.resources);
  CHECK(a.assembler_log == b.assembler_log);
}

constexpr size_t kHeaderBytes = 88, kDigestAt = 56;

void make_digest_right(std::string& entry) {
  const std::array<std::string_view, 2> covered = {std::string_view(entry).substr(0, kDigestAt),
                                                   std::string_view(entry).substr(kHeaderBytes)};
  const Digest digest = sha256(covered);
  std::memcpy(entry.data() + kDigestAt, digest.data(), digest.size());
}

fs::path only_entry(const std::string& directory) {
  for (const auto& file : fs::directory_iterator(directory)) {
    if (file.path().extension() == ".sagejit") return file.path();
  }
  FAIL("no entry in " << directory);
  return {};
}

}  // namespace

TEST_CASE("sha256: the vectors of FIPS 180-4") {
  CHECK(to_hex(sha256("")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(to_hex(sha256("abc")) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(to_hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(to_hex(sha256(std::string(1000000, 'a'))) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  const std::array<std::string_view, 3> parts = {"a", "", "bc"};
  CHECK(sha256(parts) == sha256("abc"));
}

TEST_CASE("entry: decodes to what was encoded") {
  const Artifact artifact = full_artifact();
  std::string why_not;
  const auto entry = decode_entry(encode_entry(kKey, artifact), why_not);
  REQUIRE(entry);
  CHECK(entry->key == kKey);
  check_same(entry->artifact, artifact);
}

TEST_CASE("entry: every flipped byte is noticed") {
  const std::string good = encode_entry(kKey, full_artifact());
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ flip);
      std::string why_not;
      if (decode_entry(bad, why_not)) FAIL("byte " << i << " of " << good.size());
      if (why_not.empty()) FAIL("no reason for byte " << i);
    }
  }
}

TEST_CASE("entry: every truncation and every addition is noticed") {
  const std::string good = encode_entry(kKey, full_artifact());
  std::string why_not;
  for (size_t bytes = 0; bytes < good.size(); ++bytes) {
    if (decode_entry(std::string_view(good).substr(0, bytes), why_not)) FAIL(bytes);
  }
  CHECK_FALSE(decode_entry(good + '\0', why_not));
  CHECK(why_not == "it is torn: its length is wrong");
  CHECK_FALSE(decode_entry(std::string(good.size(), '\0'), why_not));
  CHECK(why_not == "it is not a cache entry");
}

TEST_CASE("entry: a right digest on wrong metadata is refused, not thrown") {
  for (const char* metadata : {"", "{", "[]", "{\"variant_name\": 1}", "null"}) {
    std::string bytes = encode_entry({"k", ""}, Artifact{});
    const uint64_t size = std::strlen(metadata);
    bytes.resize(kHeaderBytes + 1);  // behind the header and the key
    bytes += metadata;
    std::memcpy(bytes.data() + 32, &size, sizeof(size));
    make_digest_right(bytes);
    std::string why_not;
    CHECK_FALSE(decode_entry(bytes, why_not));
    CHECK(why_not.starts_with("its metadata is wrong: "));
  }
}

TEST_CASE("entry: modules that are not as long as the code is are refused") {
  const std::string good = encode_entry(kKey, full_artifact());
  const auto refusal = [&](const std::string& was, const std::string& is) {
    std::string bytes = good;
    REQUIRE(bytes.find(was) != std::string::npos);
    bytes.replace(bytes.find(was), was.size(), is);
    make_digest_right(bytes);
    std::string why_not;
    CHECK_FALSE(decode_entry(bytes, why_not));
    return why_not;
  };
  CHECK(refusal("\"ptx_bytes\":7", "\"ptx_bytes\":6") ==
        "its metadata is wrong: an artifact has code that belongs to none of its modules");
  CHECK(refusal("\"cubin_bytes\":2", "\"cubin_bytes\":3") ==
        "its metadata is wrong: cubin_bytes of an artifact's module reach beyond their section");
}

TEST_CASE("private directory: is made with mode 0700, parents included") {
  const TemporaryDirectory parent;
  const std::string path = parent / "a/b/c";
  std::string why_not;
  REQUIRE(PrivateDirectory::open(path, why_not));
  for (const char* part : {"a", "a/b", "a/b/c"}) {
    struct stat status;
    REQUIRE(stat((parent / part).c_str(), &status) == 0);
    CHECK((status.st_mode & 07777) == 0700);
  }
}

TEST_CASE("private directory: one that others can write is refused") {
  const TemporaryDirectory parent;
  std::string why_not;
  const std::string path = parent / "open";
  for (const mode_t mode : {0770, 0702}) {
    mkdir(path.c_str(), 0700);
    chmod(path.c_str(), mode);
    CHECK_FALSE(PrivateDirectory::open(path, why_not));
    CHECK(why_not ==
          fmt::format("its mode {:04o} lets others write it; run: chmod 700 '{}'", mode, path));
  }
  chmod(path.c_str(), 0755);
  CHECK(PrivateDirectory::open(path, why_not));
}

TEST_CASE("private directory: one of another user is refused") {
  const TemporaryDirectory parent;
  const std::string path = parent / "foreign";
  mkdir(path.c_str(), 0700);
  if (chown(path.c_str(), 12345, 12345) != 0) return;  // only root can give files away
  std::string why_not;
  CHECK_FALSE(PrivateDirectory::open(path, why_not));
  CHECK(why_not == fmt::format("it belongs to user 12345, not to {}", geteuid()));
}

TEST_CASE("private directory: relative, occupied and impossible paths are refused") {
  const TemporaryDirectory parent;
  std::string why_not;
  CHECK_FALSE(PrivateDirectory::open("relative", why_not));
  CHECK(why_not == "the path is not absolute");
  write_file(parent / "file", "");
  CHECK_FALSE(PrivateDirectory::open(parent / "file", why_not));
  CHECK(why_not == "it cannot be opened: Not a directory");
  CHECK_FALSE(PrivateDirectory::open(parent / "file/below", why_not));
  CHECK(why_not == "it cannot be created: Not a directory");
}

TEST_CASE("private directory: only regular files of the user's own are read") {
  const TemporaryDirectory parent;
  std::string why_not;
  const auto directory = PrivateDirectory::open(parent / "d", why_not);
  REQUIRE(directory);
  REQUIRE(directory->replace("good", "contents", why_not));
  CHECK(directory->read("good", 100, why_not) == "contents");
  CHECK_FALSE(directory->read("good", 7, why_not));
  CHECK(why_not == "it has 8 bytes, more than 7");
  CHECK_FALSE(directory->read("absent", 100, why_not));
  CHECK(why_not == "");
  fs::create_symlink("good", parent / "d/link");
  CHECK_FALSE(directory->read("link", 100, why_not));
  CHECK(why_not.starts_with("it cannot be opened: "));
  REQUIRE(mkfifo((parent / "d/fifo").c_str(), 0600) == 0);
  CHECK_FALSE(directory->read("fifo", 100, why_not));
  CHECK(why_not == "it is not a regular file");
  chmod((parent / "d/good").c_str(), 0622);
  CHECK_FALSE(directory->read("good", 100, why_not));
  CHECK(why_not == "another user can write it");
}

TEST_CASE("private directory: work goes on in the directory that was opened") {
  const TemporaryDirectory parent;
  std::string why_not;
  const auto directory = PrivateDirectory::open(parent / "d", why_not);
  fs::rename(parent / "d", parent / "moved");
  fs::create_directory(parent / "d");
  REQUIRE(directory->replace("file", "x", why_not));
  CHECK(fs::exists(parent / "moved/file"));
  CHECK_FALSE(fs::exists(parent / "d/file"));
}

TEST_CASE("private directory: old temporaries are swept, young ones stay") {
  const TemporaryDirectory parent;
  std::string why_not;
  const auto directory = PrivateDirectory::open(parent / "d", why_not);
  write_file(parent / "d/.tmp-old", "x");
  write_file(parent / "d/.tmp-young", "x");
  write_file(parent / "d/other", "x");
  for (const char* old : {".tmp-old", "other"}) {
    fs::last_write_time(parent / (std::string("d/") + old),
                        fs::file_time_type::clock::now() - std::chrono::hours(2));
  }
  directory->remove_stale_temporaries(std::chrono::hours(1));
  CHECK_FALSE(fs::exists(parent / "d/.tmp-old"));
  CHECK(fs::exists(parent / "d/.tmp-young"));
  CHECK(fs::exists(parent / "d/other"));
}

TEST_CASE("private directory: a lock is exclusive and ends with its owner") {
  const TemporaryDirectory parent;
  std::string why_not;
  const auto directory = PrivateDirectory::open(parent / "d", why_not);
  {
    const FileDescriptor held = directory->lock("k", std::chrono::milliseconds(0));
    REQUIRE(held);
    CHECK_FALSE(directory->lock("k", std::chrono::milliseconds(20)));
    CHECK(directory->lock("other", std::chrono::milliseconds(0)));
  }
  CHECK(directory->lock("k", std::chrono::milliseconds(0)));
}

TEST_CASE("disk cache: stores and finds; other keys miss") {
  const TemporaryDirectory parent;
  Warnings warnings;
  const DiskCache cache(parent / "c", "", warnings.log());
  CHECK_FALSE(cache.find(kKey));
  const Artifact artifact = full_artifact();
  REQUIRE(cache.store(kKey, artifact));
  const auto found = cache.find(kKey);
  REQUIRE(found);
  check_same(*found, artifact);
  CHECK_FALSE(cache.find({"kez", kKey.toolchain}));
  CHECK(warnings.messages().empty());
  // Nothing but the entry is left behind.
  CHECK(std::distance(fs::directory_iterator(parent / "c"), {}) == 1);
}

TEST_CASE(
    "disk cache: damaged, torn and foreign entries are a miss with one warning, and replaced") {
  const TemporaryDirectory parent;
  const Artifact artifact = full_artifact();
  const std::string good = encode_entry(kKey, artifact);
  std::string flipped = good;
  flipped[good.size() / 2] ^= 4;
  const std::vector<std::string> bad = {"",         "x",
                                        flipped,    good.substr(0, good.size() - 1),
                                        good + "x", encode_entry({"another", "by x"}, artifact)};
  for (size_t i = 0; i < bad.size(); ++i) {
    INFO(i);
    Warnings warnings;
    const DiskCache cache(parent / "c", "", warnings.log());
    write_file(parent / ("c/" + DiskCache::file_name(kKey)), bad[i]);
    CHECK_FALSE(cache.find(kKey));
    CHECK_FALSE(cache.find(kKey));
    REQUIRE(warnings.messages().size() == 1);
    CHECK(warnings.messages()[0].ends_with("; it will be replaced"));
    REQUIRE(cache.store(kKey, artifact));
    CHECK(cache.find(kKey));
  }
}

TEST_CASE(
    "disk cache: artifacts of several toolchains are kept apart; without one, the newest will do") {
  const TemporaryDirectory parent;
  Warnings warnings;
  const DiskCache cache(parent / "c", "", warnings.log());
  CHECK_FALSE(cache.find_newest("r"));
  Artifact artifact = full_artifact();
  int age_hours = 0;
  for (const char* toolchain : {"new", "middle", "old"}) {
    artifact.backend = toolchain;
    REQUIRE(cache.store({"r", toolchain}, artifact));
    fs::last_write_time(fs::path(parent / "c") / DiskCache::file_name({"r", toolchain}),
                        fs::file_time_type::clock::now() - std::chrono::hours(age_hours++));
  }
  REQUIRE(cache.store({"another", "newest"}, artifact));
  CHECK(cache.find({"r", "old"})->backend == "old");
  CHECK(cache.find({"r", "new"})->backend == "new");
  CHECK_FALSE(cache.find({"r", "unknown"}));
  CHECK(cache.find_newest("r")->backend == "new");
  CHECK_FALSE(cache.find_newest("s"));
  CHECK(warnings.messages().empty());
  // What is damaged is passed over, like everywhere.
  write_file(parent / ("c/" + DiskCache::file_name({"r", "new"})), "junk");
  CHECK(cache.find_newest("r")->backend == "middle");
  CHECK(warnings.messages().size() == 1);
}

TEST_CASE("disk cache: an entry under the name of another toolchain or request is foreign") {
  const TemporaryDirectory parent;
  const Artifact artifact = full_artifact();
  for (const CacheKey& named : {CacheKey{"r", "y"}, CacheKey{"s", "x"}}) {
    Warnings warnings;
    const DiskCache cache(parent / "c", "", warnings.log());
    write_file(parent / ("c/" + DiskCache::file_name(named)), encode_entry({"r", "x"}, artifact));
    CHECK_FALSE(cache.find(named));
    CHECK_FALSE(cache.find_newest(named.request));
    CHECK(warnings.messages().size() == 1);
  }
}

TEST_CASE("disk cache: off with one warning where the directory cannot be trusted") {
  const TemporaryDirectory parent;
  Warnings warnings;
  mkdir((parent / "c").c_str(), 0700);
  chmod((parent / "c").c_str(), 0777);
  const DiskCache cache(parent / "c", "", warnings.log());
  CHECK_FALSE(cache.enabled());
  CHECK_FALSE(cache.store(kKey, full_artifact()));
  CHECK_FALSE(cache.find(kKey));
  REQUIRE(warnings.messages().size() == 1);
  CHECK(warnings.messages()[0] ==
        fmt::format("the kernel cache is off: directory '{0}': its mode 0777 lets others write it; "
                    "run: chmod 700 '{0}'",
                    parent / "c"));
}

TEST_CASE("disk cache: a directory that vanishes costs one warning") {
  const TemporaryDirectory parent;
  Warnings warnings;
  const DiskCache cache(parent / "c", "", warnings.log());
  fs::remove_all(parent / "c");
  CHECK_FALSE(cache.store(kKey, full_artifact()));
  CHECK_FALSE(cache.store(kKey, full_artifact()));
  REQUIRE(warnings.messages().size() == 1);
  CHECK(
      warnings.messages()[0] ==
      fmt::format("kernels are not cached: directory '{}': a file cannot be created there: No such "
                  "file or directory",
                  parent / "c"));
}

TEST_CASE("disk cache: lists entries with their damage, and shrinks by age") {
  const TemporaryDirectory parent;
  const DiskCache cache(parent / "c", "", Log());
  for (const char* key : {"one", "two", "three"})
    REQUIRE(cache.store({key, "by x"}, full_artifact()));
  const uint64_t each = fs::file_size(only_entry(parent / "c"));
  const fs::path old = fs::path(parent / "c") / DiskCache::file_name({"two", "by x"});
  fs::last_write_time(old, fs::file_time_type::clock::now() - std::chrono::hours(5));
  write_file(parent / ("c/" + DiskCache::file_name({"four", "by x"})), "junk");
  int damaged = 0;
  for (const DiskCache::Entry& entry : cache.list()) {
    damaged += !entry.damage.empty();
    if (entry.damage.empty()) CHECK(entry.variant_name == "toy");
  }
  CHECK(cache.list().size() == 4);
  CHECK(damaged == 1);
  CHECK(cache.shrink(3 * each) == each);
  CHECK_FALSE(fs::exists(old));
  cache.shrink(0);
  CHECK(cache.list().empty());
}

TEST_CASE("disk cache: a hit on a large entry is quick") {
  const TemporaryDirectory parent;
  const DiskCache cache(parent / "c", "", Log());
  Artifact artifact = full_artifact();
  for (KernelModule& module : artifact.modules) {
    module.ptx.assign(150000, 'x');
    module.cubin.assign(100000, 7);
  }
  REQUIRE(cache.store(kKey, artifact));
  const fs::path path = only_entry(parent / "c");
  double hit_ms = 1e9, read_ms = 1e9;
  for (int i = 0; i < 20; ++i) {
    Stopwatch watch;
    REQUIRE(cache.find(kKey));
    hit_ms = std::min(hit_ms, watch.lap_ms());
    REQUIRE(sha256(read_file(path)) != Digest{});
    read_ms = std::min(read_ms, watch.lap_ms());
  }
  WARN("disk hit, 500 kB: " << hit_ms << " ms, of which reading and digest " << read_ms << " ms");
  // Where reading alone is slow (a busy machine, a slow file system), a hit may be, too.
  if (!kSanitized) CHECK(hit_ms < std::max(5.0, 3 * read_ms));
}

}  // namespace sagejit::testing
