// What fake_cuda.cc tells besides the driver's interface. Found by dlsym, like all of it.
#pragma once

// Kernels enqueued on a device so far.
extern "C" int fake_cuda_launches(int device);
// The device whose context is current in this thread, or -1.
extern "C" int fake_cuda_current_device();
// Makes a device's context current, as a host program does, until the matching call.
extern "C" void fake_cuda_enter(int device);
extern "C" void fake_cuda_leave();
