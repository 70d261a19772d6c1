// What fake_cuda.cc tells besides the driver's interface. Found by dlsym, like all of it.
#pragma once

// Kernels enqueued on a device so far.
extern "C" int fake_cuda_launches(int device);
// The device whose context is current in this thread, or -1.
extern "C" int fake_cuda_current_device();
// Makes a device's context current, as a host program does, until the matching call.
extern "C" void fake_cuda_enter(int device);
extern "C" void fake_cuda_leave();
// From now on modules are made with that result; what is made says `log`, as information or error,
// but for the first `num_silent` ones, as if the driver found those in its cache.
extern "C" void fake_cuda_set_jit(int num_silent, const char* log, int result);
// Modules made since, and the text and device of the last.
extern "C" int fake_cuda_jit_loads();
extern "C" const char* fake_cuda_jit_text();
extern "C" int fake_cuda_jit_device();
