// CUDA C++ for g++: put before the source of a kernel by libfakecuda's NVRTC.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <assert.h>
#include <limits.h>
#include <float.h>
#include <initializer_list>
#include <type_traits>
#include <utility>

#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0
#define FAKECUDA 1

#include <vector_types.h>
#include <vector_functions.h>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __managed__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __grid_constant__
#undef __align__
#define __global__ inline
#define __device__
#define __host__
#define __shared__ static __attribute__((aligned(16)))
#define __constant__ static
#define __managed__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __ldg(p) (*(p))
#define __restrict__ __restrict

#include "fakecuda_kernel.h"
static FCVars fc_vars;
static const FCApi* fc_api;

#define threadIdx fc_vars.tid
#define blockIdx fc_vars.bid
#define blockDim fc_vars.bdim
#define gridDim fc_vars.gdim
static const int warpSize = 32;

template <class... A>
struct FCArgs {
    static const unsigned sizes[];
    static const char kinds[];
    static const int count = sizeof...(A);
    template <class F, size_t... I>
    static void call(F f, void** p, std::index_sequence<I...>) {
        f(*reinterpret_cast<std::remove_reference_t<A>*>(p[I])...);
    }
};
template <class... A>
const unsigned FCArgs<A...>::sizes[] = {(unsigned)sizeof(A)..., 0};
template <class... A>
const char FCArgs<A...>::kinds[] = {(std::is_pointer<A>::value ? 'P' : 'V')..., 0};
template <class... A>
FCArgs<A...> fc_args(void (*)(A...));
#define FC_COMMA(...) __VA_ARGS__
#define FC_KERNEL(i, ...)                                                                \
    typedef decltype(fc_args(&__VA_ARGS__)) FCArgs_##i;                                  \
    static void fc_thread_##i(void** p) {                                                \
        FCArgs_##i::call(__VA_ARGS__, p, std::make_index_sequence<FCArgs_##i::count>()); \
    }
#define FC_ENTRY(i, name, whole) \
    {name, fc_thread_##i, FCArgs_##i::count, FCArgs_##i::sizes, FCArgs_##i::kinds, whole}

// ---- waiting
static inline void __syncthreads() { fc_api->sync_block(); }
static inline void __syncwarp(unsigned mask = 0xffffffff) { fc_api->sync_warp(mask); }
static inline void __threadfence() { fc_api->fence(); }
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}
static inline unsigned __activemask() { return fc_api->live_mask(); }
static inline void __nanosleep(unsigned) {}
static inline void __trap() { fc_api->trap("__trap"); }
static inline long long clock64() { return 0; }

template <class T>
static inline T fc_exchange(unsigned mask, T value, unsigned from) {
    static_assert(sizeof(T) <= 64, "");
    memcpy(fc_api->warp_slot(fc_vars.lane), &value, sizeof(T));
    fc_api->sync_warp(mask);
    T got = value;
    if (from < 32) memcpy((void*)&got, fc_api->warp_slot(from), sizeof(T));
    fc_api->sync_warp(mask);
    return got;
}
template <class T>
static inline T __shfl_sync(unsigned mask, T v, int src, int width = 32) {
    return fc_exchange(mask, v, (fc_vars.lane & ~(width - 1)) + (src & (width - 1)));
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T v, unsigned d, int width = 32) {
    unsigned in = fc_vars.lane & (width - 1);
    return fc_exchange(mask, v, in + d < (unsigned)width ? fc_vars.lane + d : fc_vars.lane);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T v, unsigned d, int width = 32) {
    unsigned in = fc_vars.lane & (width - 1);
    return fc_exchange(mask, v, in >= d ? fc_vars.lane - d : fc_vars.lane);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T v, int m, int width = 32) {
    return fc_exchange(mask, v, fc_vars.lane ^ m);
}
static inline unsigned __ballot_sync(unsigned mask, int p) {
    *(int*)fc_api->warp_slot(fc_vars.lane) = p != 0;
    fc_api->sync_warp(mask);
    unsigned live = fc_api->live_mask() & mask, all = 0;
    for (unsigned i = 0; i < 32; i++)
        if (live >> i & 1) all |= (unsigned)*(int*)fc_api->warp_slot(i) << i;
    fc_api->sync_warp(mask);
    return all;
}
static inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
static inline int __all_sync(unsigned mask, int p) {
    unsigned live = fc_api->live_mask() & mask;
    return (__ballot_sync(mask, p) & live) == live;
}
// Whether any thread of the block says so.
static int fc_block_count[2];
static inline int __syncthreads_or(int p) {
    static int n;
    __syncthreads();
    n = 0;
    __syncthreads();
    n |= p != 0;
    __syncthreads();
    int r = n;
    __syncthreads();
    return r;
}
static inline int __syncthreads_count(int p) {
    static int n;
    __syncthreads();
    n = 0;
    __syncthreads();
    n += p != 0;
    __syncthreads();
    int r = n;
    __syncthreads();
    return r;
}
static inline int __syncthreads_and(int p) { return !__syncthreads_or(!p); }

// ---- atomics: nobody else is there
#define FC_INTS(F) F(int) F(unsigned) F(long) F(unsigned long) F(long long) F(unsigned long long)
#define FC_ATOMIC(name, T, expression)     \
    static inline T name(T* at, T value) { \
        T old = *at;                       \
        *at = expression;                  \
        return old;                        \
    }
FC_ATOMIC(atomicAdd, int, old + value)
FC_ATOMIC(atomicAdd, unsigned, old + value)
FC_ATOMIC(atomicAdd, unsigned long long, old + value)
FC_ATOMIC(atomicAdd, float, old + value)
FC_ATOMIC(atomicAdd, double, old + value)
FC_ATOMIC(atomicSub, int, old - value)
FC_ATOMIC(atomicSub, unsigned, old - value)
#define FC_ATOMICS(T)                                      \
    FC_ATOMIC(atomicExch, T, value)                        \
    FC_ATOMIC(atomicMin, T, value < old ? value : old)     \
    FC_ATOMIC(atomicMax, T, value > old ? value : old)     \
    FC_ATOMIC(atomicAnd, T, old& value)                    \
    FC_ATOMIC(atomicOr, T, old | value)                    \
    FC_ATOMIC(atomicXor, T, old ^ value)                   \
    static inline T atomicCAS(T* at, T compare, T value) { \
        T old = *at;                                       \
        if (old == compare) *at = value;                   \
        return old;                                        \
    }
FC_ATOMICS(int)
FC_ATOMICS(unsigned)
FC_ATOMICS(unsigned long long)
static inline long long atomicMin(long long* at, long long value) {
    long long old = *at;
    if (value < old) *at = value;
    return old;
}
static inline long long atomicMax(long long* at, long long value) {
    long long old = *at;
    if (value > old) *at = value;
    return old;
}
static inline unsigned short atomicCAS(unsigned short* at, unsigned short c, unsigned short v) {
    unsigned short old = *at;
    if (old == c) *at = v;
    return old;
}
static inline float atomicExch(float* at, float v) {
    float old = *at;
    *at = v;
    return old;
}
static inline unsigned atomicInc(unsigned* at, unsigned last) {
    unsigned old = *at;
    *at = old >= last ? 0 : old + 1;
    fc_api->counted();
    return old;
}
static inline unsigned atomicDec(unsigned* at, unsigned last) {
    unsigned old = *at;
    *at = old == 0 || old > last ? last : old - 1;
    return old;
}

// ---- numbers
template <class A, class B,
    class = std::enable_if_t<std::is_arithmetic<A>::value && std::is_arithmetic<B>::value>>
static inline std::common_type_t<A, B> min(A a, B b) {
    typedef std::common_type_t<A, B> C;
    if constexpr (std::is_floating_point<C>::value)
        return (C)fmin(a, b);
    else
        return (C)a < (C)b ? (C)a : (C)b;
}
template <class A, class B,
    class = std::enable_if_t<std::is_arithmetic<A>::value && std::is_arithmetic<B>::value>>
static inline std::common_type_t<A, B> max(A a, B b) {
    typedef std::common_type_t<A, B> C;
    if constexpr (std::is_floating_point<C>::value)
        return (C)fmax(a, b);
    else
        return (C)a > (C)b ? (C)a : (C)b;
}
#define FC_BITS(name, To, From)     \
    static inline To name(From x) { \
        To y;                       \
        memcpy(&y, &x, sizeof y);   \
        return y;                   \
    }
FC_BITS(__float_as_int, int, float)
FC_BITS(__int_as_float, float, int)
FC_BITS(__float_as_uint, unsigned, float)
FC_BITS(__uint_as_float, float, unsigned)
FC_BITS(__double_as_longlong, long long, double)
FC_BITS(__longlong_as_double, double, long long)
static inline int __double2hiint(double x) { return (int)(__double_as_longlong(x) >> 32); }
static inline int __double2loint(double x) { return (int)__double_as_longlong(x); }
static inline double __hiloint2double(int hi, int lo) {
    return __longlong_as_double((long long)((unsigned long long)(unsigned)hi << 32 | (unsigned)lo));
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (x >> i & 1) << (31 - i);
    return r;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
    unsigned long long v = (unsigned long long)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) r |= (unsigned)((v >> (8 * (s >> 4 * i & 7))) & 0xff) << 8 * i;
    return r;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
static inline int __mulhi(int a, int b) { return (long long)a * b >> 32; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
static inline long long __mul64hi(long long a, long long b) { return (__int128)a * b >> 64; }
static inline int __mul24(int a, int b) { return a * b; }
#define FC_FLOAT(name, expression) \
    static inline float name(float x) { return expression; }
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __sinf sinf
#define __cosf cosf
#define __tanf tanf
FC_FLOAT(__saturatef, x < 0 ? 0 : x > 1 ? 1 : x)
FC_FLOAT(__frcp_rn, 1 / x)
FC_FLOAT(__fsqrt_rn, sqrtf(x))
FC_FLOAT(__frsqrt_rn, 1 / sqrtf(x))
FC_FLOAT(rsqrtf, (float)(1 / sqrt((double)x)))
FC_FLOAT(rcbrtf, 1 / cbrtf(x))
FC_FLOAT(sinpif, (float)sin(M_PI* x))
FC_FLOAT(cospif, (float)cos(M_PI* x))
#define __powf powf
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fadd_rn(float a, float b) {
    volatile float c = a + b;
    return c;
}
static inline float __fsub_rn(float a, float b) {
    volatile float c = a - b;
    return c;
}
static inline float __fmul_rn(float a, float b) {
    volatile float c = a * b;
    return c;
}
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) {
    volatile double c = a + b;
    return c;
}
static inline double __dmul_rn(double a, double b) {
    volatile double c = a * b;
    return c;
}
static inline double __dsub_rn(double a, double b) {
    volatile double c = a - b;
    return c;
}
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
static inline float rsqrt(float x) { return rsqrtf(x); }
static inline double rcbrt(double x) { return 1 / cbrt(x); }
static inline double sinpi(double x) { return sin(M_PI * x); }
static inline double cospi(double x) { return cos(M_PI * x); }
static inline float sinpi(float x) { return sinpif(x); }
static inline float cospi(float x) { return cospif(x); }
static inline float norm3df(float a, float b, float c) { return sqrtf(a * a + b * b + c * c); }
static inline double fc_erfinv(double x) {
    if (x <= -1 || x >= 1) return x == 1 ? INFINITY : x == -1 ? -INFINITY : NAN;
    double w = -log((1 - x) * (1 + x)), p;
    if (w < 6.25) { p = 0; }
    double t = 2 / (M_PI * 0.147) + log(1 - x * x) / 2;
    p = copysign(sqrt(sqrt(t * t - log(1 - x * x) / 0.147) - t), x);
    for (int i = 0; i < 4; i++) p -= (erf(p) - x) / (2 / sqrt(M_PI) * exp(-p * p));
    return p;
}
static inline double erfinv(double x) { return fc_erfinv(x); }
static inline float erfinv(float x) { return (float)fc_erfinv(x); }
static inline double erfcinv(double x) { return fc_erfinv(1 - x); }
static inline double erfcx(double x) { return exp(x * x) * erfc(x); }
static inline double normcdf(double x) { return erfc(-x / sqrt(2.0)) / 2; }
static inline float normcdf(float x) { return (float)normcdf((double)x); }
static inline double normcdfinv(double x) { return sqrt(2.0) * fc_erfinv(2 * x - 1); }
static inline int __float2int_rn(float x) { return (int)lrintf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline long long __float2ll_rn(float x) { return llrintf(x); }
static inline long long __double2ll_rn(double x) { return llrint(x); }
static inline int __double2int_rn(double x) { return (int)lrint(x); }
static inline float __double2float_rn(double x) { return (float)x; }
static inline float __int2float_rn(int x) { return (float)x; }
static inline unsigned umin(unsigned a, unsigned b) { return a < b ? a : b; }
static inline unsigned umax(unsigned a, unsigned b) { return a > b ? a : b; }
static inline unsigned __sad(int a, int b, unsigned c) { return (a < b ? b - a : a - b) + c; }
// As in CUDA, these take float and double, in the global namespace.
#define FC_OVERLOAD(name) \
    static inline float name(float x) { return name##f(x); }
