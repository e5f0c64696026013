#pragma once
#include "fakecuda_device.h"
struct __nv_bfloat16_raw {
    unsigned short x;
};
struct __nv_bfloat16 {
    unsigned short b;
    __nv_bfloat16() = default;
    __nv_bfloat16(const __nv_bfloat16_raw& r) : b(r.x) {}
    __nv_bfloat16(float f) {
        unsigned u = __float_as_uint(f);
        b = (f != f) ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
    }
    __nv_bfloat16(double f) : __nv_bfloat16((float)f) {}
    __nv_bfloat16(int f) : __nv_bfloat16((float)f) {}
    __nv_bfloat16(unsigned f) : __nv_bfloat16((float)f) {}
    __nv_bfloat16(long long f) : __nv_bfloat16((float)f) {}
    __nv_bfloat16(unsigned long long f) : __nv_bfloat16((float)f) {}
    operator float() const { return __uint_as_float((unsigned)b << 16); }
    operator __nv_bfloat16_raw() const { return {b}; }
};
typedef __nv_bfloat16 nv_bfloat16;
static inline float __bfloat162float(__nv_bfloat16 h) { return (float)h; }
static inline __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 h) { return h.b; }
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short s) {
    __nv_bfloat16_raw r{s};
    return __nv_bfloat16(r);
}
