// The table of addresses that CuPy's modules jump through; see patch.py.
#include <dlfcn.h>
#include <sys/mman.h>

#include "fakecuda.h"

static const uintptr_t TABLE = 0x100000000000;
static const size_t TABLE_SIZE = 1 << 16, THUNKS = 1 << 15;  // addresses, then code for what is missing
static const char* SLOTS[] = {
#include "slots.inc"
};
static int missing(long i) { return not_emulated(SLOTS[i]); }

__attribute__((constructor)) static void fill_table() {
    if (const char* gib = getenv("FAKECUDA_MEMORY")) total_memory = (size_t)(atof(gib) * (1ull << 30));
    char* at = (char*)mmap((void*)TABLE, TABLE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (at != (char*)TABLE) {
        if (at != MAP_FAILED) munmap(at, TABLE_SIZE);
        return;
    }  // there twice
    Dl_info info;
    dladdr((void*)fill_table, &info);
    void* self = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (!self) self = RTLD_DEFAULT;
    char* thunk = at + THUNKS;
    for (size_t i = 0; i < sizeof SLOTS / sizeof *SLOTS; i++) {
        void* f = dlsym(self, SLOTS[i]);
        if (!f) {  // mov $i, %edi; mov $missing, %rax; jmp *%rax
            f = thunk;
            *thunk++ = 0xbf;
            uint32_t number = i;
            memcpy(thunk, &number, 4);
            thunk += 4;
            *thunk++ = 0x48;
            *thunk++ = 0xb8;
            void* target = (void*)missing;
            memcpy(thunk, &target, 8);
            thunk += 8;
            *thunk++ = 0xff;
            *thunk++ = 0xe0;
        }
        ((void**)at)[i] = f;
    }
}
