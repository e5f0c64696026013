// Memory of the device, and of the host as CUDA gives it; copies.
#include <sys/mman.h>

#include <algorithm>

#include "fakecuda.h"

std::recursive_mutex big;
std::map<uintptr_t, Block>& blocks() {
    static auto* m = new std::map<uintptr_t, Block>;
    return *m;
}
static size_t gibibytes() {
    const char* gib = getenv("FAKECUDA_MEMORY");
    return (gib ? atof(gib) : 8) * (1ull << 30);
}
size_t used_memory, total_memory = gibibytes();

const std::pair<const uintptr_t, Block>* find_block(const void* p) {
    auto& m = blocks();
    auto at = m.upper_bound((uintptr_t)p);
    if (at == m.begin()) return nullptr;
    --at;
    return (uintptr_t)p <= at->first + at->second.size ? &*at : nullptr;
}
bool fc_is_device(const void* p, size_t bytes) {
    Hold hold(big);
    auto b = find_block(p);
    return b && (uintptr_t)p + bytes <= b->first + b->second.size && b->second.kind != cudaMemoryTypeHost;
}

// Whole pages. FAKECUDA_GUARD: the memory ends where a page begins that nobody may touch.
static bool guard = env_on("FAKECUDA_GUARD");
static void* page_alloc(size_t size, int kind) {
    size_t pages = (size + 4095) & ~4095ull, length = pages + (guard ? 4096 : 0);
    char* map = (char*)mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return nullptr;
    char* p = map;
    if (guard) {
        mprotect(map + pages, 4096, PROT_NONE);
        p += pages - ((size + 15) & ~15ull);
    }
    blocks()[(uintptr_t)p] = {size, kind, map, length};
    return p;
}

API cudaError_t cudaMalloc(void** out, size_t size) {
    Hold hold(big);
    if (sticky) return E(sticky);
    if (int e = unsafe_call()) return E(e);
    fc_count(FC_MALLOC, "");
    if (size == 0) {
        *out = nullptr;
        return cudaSuccess;
    }
    if (used_memory + size > total_memory) return E(cudaErrorMemoryAllocation);
    void* p = page_alloc(size, cudaMemoryTypeDevice);
    if (!p) return E(cudaErrorMemoryAllocation);
    memset(p, 0xFF, size);  // NaN
    used_memory += size;
    *out = p;
    return cudaSuccess;
}
API cudaError_t cudaFree(void* p) {
    Hold hold(big);
    if (!p) return cudaSuccess;
    if (int e = unsafe_call()) return E(e);
    fc_count(FC_FREE, "");
    auto at = blocks().find((uintptr_t)p);
    if (at == blocks().end() || at->second.kind == cudaMemoryTypeHost) return E(cudaErrorInvalidValue);
    used_memory -= at->second.size;
    munmap(at->second.map, at->second.length);
    blocks().erase(at);
    return cudaSuccess;
}
API cudaError_t cudaMallocManaged(void** out, size_t size, unsigned) {
    auto e = cudaMalloc(out, size);
    if (!e && *out) blocks()[(uintptr_t)*out].kind = cudaMemoryTypeManaged;
    return e;
}
API cudaError_t cudaHostAlloc(void** out, size_t size, unsigned) {
    Hold hold(big);
    if (int e = unsafe_call()) return E(e);
    fc_count(FC_HOST_ALLOC, "");
    void* p = page_alloc(size ? size : 1, cudaMemoryTypeHost);
    if (!p) return E(cudaErrorMemoryAllocation);
    *out = p;
    return cudaSuccess;
}
API cudaError_t cudaFreeHost(void* p) {
    Hold hold(big);
    if (!p) return cudaSuccess;
    auto at = blocks().find((uintptr_t)p);
    if (at == blocks().end()) return E(cudaErrorInvalidValue);
    munmap(at->second.map, at->second.length);
    blocks().erase(at);
    return cudaSuccess;
}
API cudaError_t cudaHostRegister(void*, size_t, unsigned) { return cudaSuccess; }
API cudaError_t cudaHostUnregister(void*) { return cudaSuccess; }
API cudaError_t cudaMemGetInfo(size_t* free_, size_t* total) {
    Hold hold(big);
    *free_ = total_memory - used_memory;
    *total = total_memory;
    return E(sticky);
}
API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
    Hold hold(big);
    memset(a, 0, sizeof *a);
    auto b = find_block(p);
    a->type = b ? (cudaMemoryType)b->second.kind : cudaMemoryTypeUnregistered;
    a->device = b ? 0 : -2;
    if (b) {
        a->devicePointer = (void*)p;
        if (b->second.kind != cudaMemoryTypeDevice) a->hostPointer = (void*)p;
    }
    return cudaSuccess;
}

static int copy_kind(FCKind& kind, const void* dst, const void* src, size_t n, cudaMemcpyKind k) {
    bool d = fc_is_device(dst, n), s = fc_is_device(src, n);
    switch (k) {
        case cudaMemcpyHostToHost: kind = FC_H2H; return d || s ? cudaErrorInvalidValue : 0;
        case cudaMemcpyHostToDevice: kind = FC_H2D; return d ? 0 : cudaErrorInvalidValue;
        case cudaMemcpyDeviceToHost: kind = FC_D2H; return s ? 0 : cudaErrorInvalidValue;
        case cudaMemcpyDeviceToDevice: kind = FC_D2D; return d && s ? 0 : cudaErrorInvalidValue;
        default: kind = d ? (s ? FC_D2D : FC_H2D) : s ? FC_D2H : FC_H2H; return 0;
    }
}
static int copy(void* dst, const void* src, size_t n, cudaMemcpyKind k, void* stream) {
    Hold hold(big);
    if (n == 0) return 0;
    FCKind kind;
    if (int e = copy_kind(kind, dst, src, n, k)) return e;
    return fc_submit(stream, kind, std::to_string(n) + " bytes", [=] {
        memmove(dst, src, n);
        return 0;
    });
}
API cudaError_t cudaMemcpy(void* dst, const void* src, size_t n, cudaMemcpyKind k) {
    Hold hold(big);
    if (int e = unsafe_call()) return E(e);
    fc_count(FC_SYNC_COPY, "");
    return E(copy(dst, src, n, k, nullptr));
}
API cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t n, cudaMemcpyKind k, cudaStream_t s) {
    return E(copy(dst, src, n, k, s));
}
API cudaError_t cudaMemcpyPeer(void* dst, int, const void* src, int, size_t n) {
    return cudaMemcpy(dst, src, n, cudaMemcpyDefault);
}
API cudaError_t cudaMemcpyPeerAsync(void* dst, int, const void* src, int, size_t n, cudaStream_t s) {
    return E(copy(dst, src, n, cudaMemcpyDefault, s));
}
static int copy2d(
    void* dst, size_t dp, const void* src, size_t sp, size_t w, size_t h, cudaMemcpyKind k, void* s) {
    if (!w || !h) return 0;
    FCKind kind;
    if (int e = copy_kind(kind, dst, src, (h - 1) * std::min(dp, sp) + w, k)) return e;
    return fc_submit(s, kind, "2D", [=] {
        for (size_t i = 0; i < h; i++) memmove((char*)dst + i * dp, (const char*)src + i * sp, w);
        return 0;
    });
}
API cudaError_t cudaMemcpy2D(
    void* dst, size_t dp, const void* src, size_t sp, size_t w, size_t h, cudaMemcpyKind k) {
    fc_count(FC_SYNC_COPY, "2D");
    return E(copy2d(dst, dp, src, sp, w, h, k, nullptr));
}
API cudaError_t cudaMemcpy2DAsync(
    void* dst, size_t dp, const void* src, size_t sp, size_t w, size_t h, cudaMemcpyKind k, cudaStream_t s) {
    return E(copy2d(dst, dp, src, sp, w, h, k, s));
}
API cudaError_t cudaMemsetAsync(void* p, int v, size_t n, cudaStream_t s) {
    if (n && !fc_is_device(p, n)) return E(cudaErrorInvalidValue);
    return E(n ? fc_submit(s, FC_MEMSET, std::to_string(n) + " bytes",
                     [=] {
                         memset(p, v, n);
                         return 0;
                     })
               : 0);
}
API cudaError_t cudaMemset(void* p, int v, size_t n) { return cudaMemsetAsync(p, v, n, nullptr); }
API cudaError_t cudaMemPrefetchAsync(const void*, size_t, cudaMemLocation, unsigned, cudaStream_t) {
    return cudaSuccess;
}
API cudaError_t cudaMemAdvise(const void*, size_t, cudaMemoryAdvise, cudaMemLocation) { return cudaSuccess; }
