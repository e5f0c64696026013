// The CUDA driver: modules, kernels, launches. A module is a library that nvrtc.cpp has made.
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "fakecuda.h"

struct Module {
    void* handle;
    const FCTable* table;
    std::vector<struct FunctionRec*> functions;
};
struct FunctionRec {
    Module* module;
    const FCKernel* kernel;
    int max_dynamic;
};
API int cuInit(unsigned) { return 0; }
API int cuDriverGetVersion(int* v) {
    *v = cuda_version();
    return 0;
}
API int cuGetErrorName(int e, const char** s) {
    static std::map<int, std::string> made;
    if (e == 700)
        *s = "CUDA_ERROR_ILLEGAL_ADDRESS";
    else if (e == 719)
        *s = "CUDA_ERROR_LAUNCH_FAILED";
    else if (e == 1)
        *s = "CUDA_ERROR_INVALID_VALUE";
    else if (e == 2)
        *s = "CUDA_ERROR_OUT_OF_MEMORY";
    else if (e == 200)
        *s = "CUDA_ERROR_INVALID_IMAGE";
    else if (e == 400)
        *s = "CUDA_ERROR_INVALID_HANDLE";
    else if (e == 500)
        *s = "CUDA_ERROR_NOT_FOUND";
    else {
        auto& m = made[e];
        m = "CUDA_ERROR_" + std::to_string(e);
        *s = m.c_str();
    }
    return 0;
}
API int cuGetErrorString(int e, const char** s) {
    *s = cudaGetErrorString((cudaError_t)e);
    return 0;
}
API int cuDeviceGet(int* d, int i) {
    *d = i;
    return i ? 101 : 0;
}
API int cuDeviceGetCount(int* n) {
    *n = !hidden();
    return 0;
}
API int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
static int context;
API int cuCtxGetCurrent(void** c) {
    *c = &context;
    return 0;
}
API int cuCtxSetCurrent(void*) { return 0; }
API int cuCtxCreate_v2(void** c, unsigned, int) {
    *c = &context;
    return 0;
}
API int cuCtxDestroy_v2(void*) { return 0; }
API int cuCtxGetDevice(int* d) {
    *d = 0;
    return 0;
}
API int cuStreamGetCtx(void*, void** c) {
    *c = &context;
    return 0;
}

API int cuModuleLoadData(void** out, const void* image) {
    Hold hold(big);
    if (sticky) return sticky;
    void* h;
    if (!memcmp(image, FC_PTX, FC_PTX_LENGTH)) {
        std::string path = (const char*)image + FC_PTX_LENGTH;
        h = dlopen(path.substr(0, path.find('\n')).c_str(), RTLD_NOW | RTLD_LOCAL);
    } else {
        if (memcmp(image, FC_MAGIC, 8)) return 200;
        uint64_t size;
        memcpy(&size, (const char*)image + 8, 8);
        std::string bytes(
            (const char*)image + 16, size);  // a file: dlopen tells libraries apart by their names
        char key[40];
        snprintf(key, sizeof key, "/%016lx.bin.so", fc_hash(bytes));
        std::string path = cache_folder() + key;
        if (read_file(path) != bytes) {
            std::string mine = path + "." + std::to_string(getpid());
            std::ofstream(mine, std::ios::binary) << bytes;
            rename(mine.c_str(), path.c_str());
        }
        h = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    }
    if (!h) {
        fprintf(stderr, "[fakecuda] %s\n", dlerror());
        return 200;
    }
    auto table = (const FCTable*)dlsym(h, "fc_table");
    *table->api = &fc_api;
    fc_count(FC_MODULE_LOAD, "");
    *out = new Module{h, table, {}};
    return 0;
}
API int cuModuleLoad(void** out, const char* file) {
    std::ifstream in(file, std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(in)), {});
    return bytes.size() < 16 ? 301 : cuModuleLoadData(out, bytes.data());
}
API int cuModuleUnload(void* m) { return 0; }  // functions and graphs may still hold it: kept
API int cuModuleGetFunction(void** out, void* module, const char* name) {
    Hold hold(big);
    auto m = (Module*)module;
    for (auto f : m->functions)
        if (!strcmp(f->kernel->name, name)) {
            *out = f;
            return 0;
        }
    for (int i = 0; i < m->table->nkernels; i++)
        if (!strcmp(m->table->kernels[i].name, name)) {
            m->functions.push_back(new FunctionRec{m, &m->table->kernels[i], 49152});
            *out = m->functions.back();
            return 0;
        }
    return 500;
}
API int cuModuleGetGlobal_v2(void** p, size_t* size, void* module, const char* name) {
    Hold hold(big);
    void* at = dlsym(((Module*)module)->handle, name);
    if (!at) return 500;
    *p = at;
    if (size) *size = 0;
    blocks()[(uintptr_t)at] = {1 << 16, cudaMemoryTypeDevice, nullptr, 0};
    return 0;
}
API int cuFuncGetAttribute(int* v, int attribute, void* f) {
    switch (attribute) {
        case 0: *v = 1024; break;
        case 8: *v = ((FunctionRec*)f)->max_dynamic; break;
        case 4: *v = 32; break;
        case 5:
        case 6: *v = 90; break;
        default: *v = 0;
    }
    return 0;
}
API int cuFuncSetAttribute(void* f, int attribute, int v) {
    if (attribute == 8) {
        if (v > 232448) return 1;
        ((FunctionRec*)f)->max_dynamic = v;
    }
    return 0;
}
API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, void*, int block, size_t) {
    *n = block > 0 ? 2048 / block : 0;
    return 0;
}
API int cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void*, size_t (*)(int), size_t, int limit) {
    *block = limit > 0 ? std::min(limit, 1024) : 1024;
    *grid = 132 * (2048 / *block);
    return 0;
}

static bool check_pointers = !env_on("FAKECUDA_NO_CHECK");
API int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
    unsigned bz, unsigned shared, void* stream, void** params, void** extra) {
    Hold hold(big);
    auto f = (FunctionRec*)function;
    auto k = f->kernel;
    if (extra || (!params && k->nargs)) return 1;
    if (!gx || !gy || !gz || !bx || !by || !bz || (uint64_t)bx * by * bz > 1024 || bz > 64 || gy > 65535 ||
        gz > 65535 || gx > 2147483647u || shared > (unsigned)f->max_dynamic)
        return 1;
    // The arguments are copied now: a recording keeps them.
    std::vector<size_t> at;
    size_t total = 0;
    for (int i = 0; i < k->nargs; i++) {
        at.push_back(total);
        total += (k->sizes[i] + 15) & ~15u;
    }
    auto buffer = std::make_shared<std::vector<char>>(total + 16);
    char* base = (char*)(((uintptr_t)buffer->data() + 15) & ~15ull);
    for (int i = 0; i < k->nargs; i++) memcpy(base + at[i], params[i], k->sizes[i]);
    FCDim grid{gx, gy, gz}, block{bx, by, bz};
    auto table = f->module->table;
    int e = fc_submit(stream, FC_LAUNCH, k->name, [=] {
        char* base = (char*)(((uintptr_t)buffer->data() + 15) & ~15ull);
        std::vector<void*> args;
        for (int i = 0; i < k->nargs; i++) {
            args.push_back(base + at[i]);
            if (k->kinds[i] == 'P' && check_pointers) {
                void* p;
                memcpy(&p, args.back(), 8);
                auto b = p ? find_block(p) : nullptr;
                if (p && !b) {
                    fprintf(stderr,
                        "[fakecuda] kernel %s: argument %d (%p) does not point to memory of the device\n",
                        k->name, i, p);
                    return (int)cudaErrorIllegalAddress;
                }
            }
        }
        return run_kernel(table, k, grid, block, args.data());
    });
    return e;
}
API int cuLaunchCooperativeKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
    unsigned bz, unsigned shared, void* stream, void** params) {
    return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, params, nullptr);
}
API int cuLinkCreate_v2(unsigned, void*, void**, void**) { return not_emulated("cuLinkCreate"); }
