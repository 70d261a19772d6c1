// Catch2 3 brings its own main; 2.x needs one.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_session.hpp>
int main(int argc, char** argv) {
  return Catch::Session().run(argc, argv);
}
#else
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
#endif

// What ThreadSanitizer cannot judge. NVRTC comes without its instrumentation: it sees NVRTC's calls
// of malloc and pthread_mutex_lock, and not the atomics by which one thread hands to another what
// it allocated, and takes that for a race. NVRTC calls nothing of ours: no race of ours has its
// frames.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier)
  return "race:libnvrtc\n";
}
