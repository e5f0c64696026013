// Half precision with g++'s _Float16.
#pragma once
#include "fakecuda_device.h"
struct __half_raw {
    unsigned short x;
};
struct __half {
    _Float16 v;
    __half() = default;
    __half(const __half&) = default;
    __half& operator=(const __half&) = default;
    __half(const __half_raw& r) { memcpy(&v, &r.x, 2); }
    __half(float x) : v((_Float16)x) {}
    __half(double x) : v((_Float16)x) {}
    __half(int x) : v((_Float16)x) {}
    __half(unsigned x) : v((_Float16)x) {}
    __half(long long x) : v((_Float16)x) {}
    __half(unsigned long long x) : v((_Float16)x) {}
    explicit __half(bool x) : v((_Float16)(int)x) {}
    operator float() const { return (float)v; }
    operator __half_raw() const {
        __half_raw r;
        memcpy(&r.x, &v, 2);
        return r;
    }
};
typedef __half half;
static inline float __half2float(__half h) { return (float)h.v; }
static inline __half __float2half(float x) { return __half(x); }
static inline __half __float2half_rn(float x) { return __half(x); }
static inline __half __double2half(double x) { return __half(x); }
static inline unsigned short __half_as_ushort(__half h) {
    unsigned short s;
    memcpy(&s, &h.v, 2);
    return s;
}
static inline __half __ushort_as_half(unsigned short s) {
    __half_raw r{s};
    return __half(r);
}
