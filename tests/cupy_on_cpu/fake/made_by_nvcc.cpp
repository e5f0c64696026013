// What CuPy has compiled with nvcc: sorting (thrust), CUB's reductions, scans and histograms, random numbers.
#include <algorithm>
#include <cmath>

#include "fakecuda.h"

struct half_t {
    uint16_t bits;
};
static float as_float(half_t h) {
    _Float16 f;
    memcpy(&f, &h, 2);
    return (float)f;
}
template <class T>
struct Cx {
    T re, im;
};
template <class T>
static bool less_(const T& a, const T& b) {  // NaN comes last
    if constexpr (std::is_floating_point_v<T>)
        return std::isnan(b) ? !std::isnan(a) : a < b;
    else
        return a < b;
}
static bool less_(const half_t& a, const half_t& b) { return less_(as_float(a), as_float(b)); }
template <class T>
static bool less_(const Cx<T>& a, const Cx<T>& b) {
    if (less_(a.re, b.re)) return true;
    if (less_(b.re, a.re)) return false;
    return less_(a.im, b.im);
}
// The numbers of common._get_dtype_id
template <class F>
static int by_type(int id, F f) {
    switch (id) {
        case 0: f((int8_t)0); return 0;
        case 1: f((uint8_t)0); return 0;
        case 2: f((int16_t)0); return 0;
        case 3: f((uint16_t)0); return 0;
        case 4: f((int32_t)0); return 0;
        case 5: f((uint32_t)0); return 0;
        case 6: f((int64_t)0); return 0;
        case 7: f((uint64_t)0); return 0;
        case 8: f(half_t{}); return 0;
        case 9: f(0.0f); return 0;
        case 10: f(0.0); return 0;
        case 11: f(Cx<float>{}); return 0;
        case 12: f(Cx<double>{}); return 0;
        case 13: f(false); return 0;
    }
    return cudaErrorNotSupported;
}
// Sorting along the last axis. CuPy hands over the shape.
void thrust_sort(int type, void* data, size_t*, const std::vector<ptrdiff_t>& shape, intptr_t stream, void*) {
    size_t n = shape.back(), rows = 1;
    for (size_t i = 0; i + 1 < shape.size(); i++) rows *= shape[i];
    fc_submit((void*)stream, FC_LIBRARY, "thrust_sort", [=] {
        return by_type(type, [&](auto zero) {
            using T = decltype(zero);
            for (size_t r = 0; r < rows; r++) {
                T* a = (T*)data + r * n;
                std::stable_sort(a, a + n, [](const T& x, const T& y) { return less_(x, y); });
            }
        });
    });
}
void thrust_argsort(
    int type, size_t* index, void* data, void*, const std::vector<ptrdiff_t>& shape, intptr_t stream, void*) {
    size_t n = shape.back(), rows = 1;
    for (size_t i = 0; i + 1 < shape.size(); i++) rows *= shape[i];
    fc_submit((void*)stream, FC_LIBRARY, "thrust_argsort", [=] {
        return by_type(type, [&](auto zero) {
            using T = decltype(zero);
            for (size_t r = 0; r < rows; r++) {
                T* a = (T*)data + r * n;
                size_t* i = index + r * n;
                for (size_t k = 0; k < n; k++) i[k] = k;
                std::stable_sort(i, i + n, [a](size_t x, size_t y) { return less_(a[x], a[y]); });
                std::vector<T> sorted(n);
                for (size_t k = 0; k < n; k++) sorted[k] = a[i[k]];
                for (size_t k = 0; k < n; k++) a[k] = sorted[k];
            }
        });
    });
}
void thrust_lexsort(int type, size_t* index, void* keys, size_t k, size_t n, intptr_t stream, void*) {
    fc_submit((void*)stream, FC_LIBRARY, "thrust_lexsort", [=] {
        for (size_t i = 0; i < n; i++) index[i] = i;
        return by_type(type, [&](auto zero) {
            using T = decltype(zero);
            for (size_t j = 0; j < k; j++) {
                T* a = (T*)keys + j * n;
                std::stable_sort(index, index + n, [a](size_t x, size_t y) { return less_(a[x], a[y]); });
            }
        });
    });
}

static float as_num(half_t h) { return as_float(h); }
template <class T>
static T as_num(T x) {
    return x;
}
static void put(half_t& h, float v) {
    _Float16 f = (_Float16)v;
    memcpy(&h, &f, 2);
}
template <class T>
static void put(T& to, T v) {
    to = v;
}
template <class T>
static Cx<T> operator+(Cx<T> a, Cx<T> b) {
    return {a.re + b.re, a.im + b.im};
}
template <class T>
static Cx<T> operator*(Cx<T> a, Cx<T> b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
template <class T>
static bool isnan_(T x) {
    if constexpr (std::is_floating_point_v<T>)
        return std::isnan(x);
    else
        return false;
}
template <class T>
static bool isnan_(Cx<T> x) {
    return isnan_(x.re) || isnan_(x.im);
}
template <class T>
struct one_ {
    static T get() { return 1; }
};
template <class T>
struct one_<Cx<T>> {
    static Cx<T> get() { return {1, 0}; }
};
enum { SUM, MIN, MAX, ARGMIN, ARGMAX, CUMSUM, CUMPROD, PROD };
template <class T>
static void fold(const T* x, size_t n, T* y, int op) {
    using N = decltype(as_num(T{}));
    if (op == SUM || op == PROD) {
        N total = op == SUM ? N{} : one_<N>::get();
        // By pairs, as many threads would.
        std::function<N(size_t, size_t)> tree = [&](size_t b, size_t e) -> N {
            if (e - b <= 64) {
                N t = as_num(x[b]);
                for (size_t i = b + 1; i < e; i++) t = op == SUM ? N(t + as_num(x[i])) : N(t * as_num(x[i]));
                return t;
            }
            size_t m = b + (e - b) / 2;
            return op == SUM ? N(tree(b, m) + tree(m, e)) : N(tree(b, m) * tree(m, e));
        };
        put(*y, n ? tree(0, n) : total);
        return;
    }
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        N a = as_num(x[best]), b = as_num(x[i]);
        if (isnan_(a)) break;
        bool smaller = op == MIN || op == ARGMIN;
        if (isnan_(b) || (smaller ? less_(b, a) : less_(a, b))) best = i;
    }
    if (op == MIN || op == MAX) {
        *y = x[best];
        return;
    }
    struct Pair {
        int key;
        T value;
    };  // cub::KeyValuePair
    Pair p;
    p.key = best;
    p.value = x[best];
    memcpy((void*)y, &p, sizeof p);
}
void cub_device_reduce(void*, size_t&, void* x, void* y, int n, cudaStream_t s, int op, int type) {
    fc_submit(s, FC_LAUNCH, "cub_device_reduce", [=] {
        return by_type(type, [&](auto z) {
            using T = decltype(z);
            fold((T*)x, n, (T*)y, op);
        });
    });
}
void cub_device_segmented_reduce(
    void*, size_t&, void* x, void* y, int segments, int size, cudaStream_t s, int op, int type) {
    fc_submit(s, FC_LAUNCH, "cub_device_segmented_reduce", [=] {
        return by_type(type, [&](auto z) {
            using T = decltype(z);
            for (int i = 0; i < segments; i++) fold((T*)x + (size_t)i * size, size, (T*)y + i, op);
        });
    });
}
void cub_device_scan(void*, size_t&, void* x, void* y, int n, cudaStream_t s, int op, int type) {
    fc_submit(s, FC_LAUNCH, "cub_device_scan", [=] {
        return by_type(type, [&](auto z) {
            using T = decltype(z);
            using N = decltype(as_num(T{}));
            N t = op == CUMSUM ? N{} : one_<N>::get();
            for (int i = 0; i < n; i++) {
                t = op == CUMSUM ? N(t + as_num(((T*)x)[i])) : N(t * as_num(((T*)x)[i]));
                put(((T*)y)[i], t);
            }
        });
    });
}
template <class T>
static double to_double(T x) {
    return (double)as_num(x);
}
template <class T>
static double to_double(Cx<T> x) {
    return x.re;
}
static void count_bins(
    void* x, void* y, int levels, size_t n, cudaStream_t s, int type, std::function<long(double)> bin) {
    fc_submit(s, FC_LAUNCH, "cub_device_histogram", [=] {
        long long* counts = (long long*)y;
        std::fill(counts, counts + levels - 1, 0);
        return by_type(type, [&](auto z) {
            using T = decltype(z);
            for (size_t i = 0; i < n; i++) {
                long b = bin(to_double(((T*)x)[i]));
                if (b >= 0 && b < levels - 1) counts[b]++;
            }
        });
    });
}
void cub_device_histogram_even(
    void*, size_t&, void* x, void* y, int levels, int lower, int upper, size_t n, cudaStream_t s, int type) {
    count_bins(x, y, levels, n, s, type, [=](double v) {
        return v < lower || v >= upper ? -1L : (long)((v - lower) * (levels - 1) / (upper - lower));
    });
}
void cub_device_histogram_range(
    void*, size_t&, void* x, void* y, int levels, void* bins, size_t n, cudaStream_t s, int type) {
    std::function<double(long)> at = [=](long i) -> double {  // of whole numbers, the bins are double
        return type == 8 ? as_float(((half_t*)bins)[i]) : type == 9 ? ((float*)bins)[i] : ((double*)bins)[i];
    };
    count_bins(x, y, levels, n, s, type, [=](double v) {
        if (!(v >= at(0)) || !(v < at(levels - 1))) return -1L;
        long lo = 0, hi = levels - 1;
        while (hi - lo > 1) {
            long mid = (lo + hi) / 2;
            (v >= at(mid) ? lo : hi) = mid;
        }
        return lo;
    });
}
size_t cub_device_histogram_even_get_workspace_size(void*, void*, int, int, int, size_t, cudaStream_t, int) {
    return 1024;
}
size_t cub_device_histogram_range_get_workspace_size(void*, void*, int, void*, size_t, cudaStream_t, int) {
    return 1024;
}
size_t cub_device_reduce_get_workspace_size(void*, void*, int, cudaStream_t, int, int) { return 1024; }
size_t cub_device_segmented_reduce_get_workspace_size(void*, void*, int, int, cudaStream_t, int, int) {
    return 1;
}
size_t cub_device_scan_get_workspace_size(void*, void*, int, cudaStream_t, int, int) { return 1024; }

// Random numbers: other ones than cuRAND's. The state is the seed and a counter, in the memory of the device.
struct Dice {
    uint64_t* state;
    typedef uint64_t result_type;
    static constexpr uint64_t min() { return 0; }
    static constexpr uint64_t max() { return ~0ull; }
    uint64_t operator()() {
        uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return z ^ (z >> 31);
    }
    double uniform() { return ((*this)() >> 11) * 0x1p-53; }
};
template <class F>
static void roll(intptr_t state, ssize_t size, intptr_t stream, const char* name, F f) {
    fc_submit((void*)stream, FC_LAUNCH, name, [=] {
        Dice dice{(uint64_t*)state};
        for (ssize_t i = 0; i < size; i++) f(dice, i);
        return 0;
    });
}
void init_curand_generator(int, long state, unsigned long seed, long, long stream) {
    fc_submit((void*)stream, FC_LAUNCH, "init_curand", [=] {
        *(uint64_t*)state = seed * 0x2545f4914f6cdd1dull + 1;
        return 0;
    });
}
void random_uniform(int, long st, long, long out, long n, long s) {
    roll(st, n, s, "random_uniform", [=](Dice& d, long i) { ((double*)out)[i] = d.uniform(); });
}
void random_uniform_float(int, long st, long, long out, long n, long s) {
    roll(st, n, s, "random_uniform_float",
        [=](Dice& d, long i) { ((float*)out)[i] = (d() >> 40) * 0x1p-24f; });
}
void raw(int, long st, long, long out, long n, long s) {
    roll(st, n, s, "raw", [=](Dice& d, long i) { ((int32_t*)out)[i] = d() >> 33; });
}
void interval_32(int, long st, long, long out, long n, long s, unsigned mx, unsigned mask) {
    roll(st, n, s, "interval_32", [=](Dice& d, long i) {
        unsigned v;
        do v = (unsigned)(d() >> 32) & mask;
        while (v > mx);
        ((unsigned*)out)[i] = v;
    });
}
void interval_64(int, long st, long, long out, long n, long s, unsigned long mx, unsigned long mask) {
    roll(st, n, s, "interval_64", [=](Dice& d, long i) {
        unsigned long v;
        do v = d() & mask;
        while (v > mx);
        ((unsigned long*)out)[i] = v;
    });
}
static double normal(Dice& d) {
    double u = 1 - d.uniform();
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * d.uniform());
}
void standard_normal(int, long st, long, long out, long n, long s) {
    roll(st, n, s, "standard_normal", [=](Dice& d, long i) { ((double*)out)[i] = normal(d); });
}
void standard_normal_float(int, long st, long, long out, long n, long s) {
    roll(st, n, s, "standard_normal_float", [=](Dice& d, long i) { ((float*)out)[i] = (float)normal(d); });
}
void exponential(int, long st, long, long out, long n, long s) {
    roll(st, n, s, "exponential", [=](Dice& d, long i) { ((double*)out)[i] = -std::log(1 - d.uniform()); });
}
