// The rest of CUDA's runtime: errors, the one device and what it can.
#include "fakecuda.h"

static const std::map<int, std::pair<const char*, const char*>> ERRORS = {{0, {"cudaSuccess", "no error"}},
    {1, {"cudaErrorInvalidValue", "invalid argument"}}, {2, {"cudaErrorMemoryAllocation", "out of memory"}},
    {3, {"cudaErrorInitializationError", "initialization error"}},
    {9, {"cudaErrorInvalidConfiguration", "invalid configuration argument"}},
    {21, {"cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"}},
    {35, {"cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"}},
    {100, {"cudaErrorNoDevice", "no CUDA-capable device is detected"}},
    {101, {"cudaErrorInvalidDevice", "invalid device ordinal"}},
    {200, {"cudaErrorInvalidKernelImage", "device kernel image is invalid"}},
    {400, {"cudaErrorInvalidResourceHandle", "invalid resource handle"}},
    {500, {"cudaErrorSymbolNotFound", "named symbol not found"}},
    {600, {"cudaErrorNotReady", "device not ready"}},
    {700, {"cudaErrorIllegalAddress", "an illegal memory access was encountered"}},
    {704, {"cudaErrorPeerAccessAlreadyEnabled", "peer access is already enabled"}},
    {705, {"cudaErrorPeerAccessNotEnabled", "peer access has not been enabled"}},
    {719, {"cudaErrorLaunchFailure", "unspecified launch failure"}},
    {801, {"cudaErrorNotSupported", "operation not supported"}},
    {900, {"cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"}},
    {901, {"cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"}},
    {904, {"cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"}},
    {905, {"cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work in another stream"}},
    {906, {"cudaErrorStreamCaptureImplicit",
              "operation would make the legacy stream depend on a capturing blocking stream"}},
    {907, {"cudaErrorCapturedEvent",
              "operation not permitted on an event last recorded in a capturing stream"}},
    {908, {"cudaErrorStreamCaptureWrongThread",
              "attempt to terminate a thread-local capture sequence from another thread"}},
    {998, {"fakecudaErrorNotEmulated", "cupy_on_cpu does not emulate this function"}},
    {999, {"cudaErrorUnknown", "unknown error"}}};

API const char* cudaGetErrorName(cudaError_t e) {
    auto at = ERRORS.find(e);
    return at == ERRORS.end() ? "cudaErrorUnknown" : at->second.first;
}
API const char* cudaGetErrorString(cudaError_t e) {
    auto at = ERRORS.find(e);
    return at == ERRORS.end() ? "unknown error" : at->second.second;
}
int cuda_version() {
    const char* v = getenv("FAKECUDA_VERSION");
    return v ? atoi(v) : 13000;
}
bool hidden() {
    const char* v = getenv("CUDA_VISIBLE_DEVICES");
    return v && (!*v || strcmp(v, "-1") == 0);
}
API cudaError_t cudaDriverGetVersion(int* v) {
    *v = cuda_version();
    return cudaSuccess;
}
API cudaError_t cudaRuntimeGetVersion(int* v) {
    *v = cuda_version();
    return cudaSuccess;
}
API cudaError_t cudaGetDeviceCount(int* n) {
    if (hidden()) {
        *n = 0;
        return E(cudaErrorNoDevice);
    }
    *n = 1;
    return cudaSuccess;
}
API cudaError_t cudaGetDevice(int* d) {
    if (hidden()) return E(cudaErrorNoDevice);
    *d = 0;
    return cudaSuccess;
}
API cudaError_t cudaSetDevice(int d) {
    if (hidden()) return E(cudaErrorNoDevice);
    return E(d == 0 ? 0 : cudaErrorInvalidDevice);
}
API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attr, int device) {
    if (device) return E(cudaErrorInvalidDevice);
    switch ((int)attr) {
        case 1:
        case 2:
        case 3: *value = 1024; break;
        case 4: *value = 64; break;
        case 5: *value = 2147483647; break;
        case 6:
        case 7: *value = 65535; break;
        case 8: *value = 49152; break;
        case 9: *value = 65536; break;
        case 10: *value = 32; break;
        case 12: *value = 65536; break;
        case 13: *value = 1755000; break;
        case 16: *value = 132; break;
        case 36: *value = 2619000; break;
        case 37: *value = 5120; break;
        case 38: *value = 52428800; break;
        case 39: *value = 2048; break;
        case 75: *value = 9; break;
        case 76: *value = 0; break;
        case 81: *value = 233472; break;
        case 97: *value = 232448; break;
        case 115: *value = 0; break;  // no cudaMallocAsync
        default: *value = 1;
    }
    return cudaSuccess;
}
API cudaError_t cudaDeviceGetByPCIBusId(int* d, const char*) {
    *d = 0;
    return cudaSuccess;
}
API cudaError_t cudaDeviceGetPCIBusId(char* id, int len, int) {
    snprintf(id, len, "0000:00:00.0");
    return cudaSuccess;
}
API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
    if (device) return E(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "cupy_on_cpu (no GPU)");
    p->totalGlobalMem = total_memory;
    p->sharedMemPerBlock = 49152;
    p->regsPerBlock = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->totalConstMem = 65536;
    p->major = 9;
    p->minor = 0;
    p->multiProcessorCount = 132;
    p->unifiedAddressing = 1;
    p->managedMemory = 1;
    p->concurrentKernels = 1;
    p->l2CacheSize = 52428800;
    p->maxThreadsPerMultiProcessor = 2048;
    p->memoryBusWidth = 5120;
    p->sharedMemPerMultiprocessor = 233472;
    p->sharedMemPerBlockOptin = 232448;
    p->regsPerMultiprocessor = 65536;
    p->cooperativeLaunch = 1;
    return cudaSuccess;
}
API cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
    *can = 0;
    return cudaSuccess;
}
API cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return E(cudaErrorInvalidDevice); }
API cudaError_t cudaDeviceDisablePeerAccess(int) { return E(cudaErrorPeerAccessNotEnabled); }
API cudaError_t cudaDeviceGetLimit(size_t* v, cudaLimit) {
    *v = 8 << 20;
    return cudaSuccess;
}
API cudaError_t cudaDeviceSetLimit(cudaLimit, size_t) { return cudaSuccess; }

API cudaError_t cudaProfilerStart() { return cudaSuccess; }
API cudaError_t cudaProfilerStop() { return cudaSuccess; }
// What nvcc's code calls when a module is loaded: CuPy's cub, thrust and random modules.
API void** __cudaRegisterFatBinary(void*) {
    static void* handle;
    return &handle;
}
API void __cudaRegisterFatBinaryEnd(void**) {}
API void __cudaUnregisterFatBinary(void**) {}
API void __cudaRegisterFunction(
    void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*, dim3*, int*) {}
API void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
API char __cudaInitModule(void**) { return 0; }

int not_emulated(const char* name) {
    fprintf(stderr, "[fakecuda] %s is not emulated\n", name);
    if (name[0] == '_') sticky = (cudaError_t)998;  // C++ that returns nothing: the next call of CUDA fails
    return E(998);
}
