// cuBLAS, as far as CuPy's products of matrices go. Everything else says "not supported" (stubs.inc).
#include <dlfcn.h>

#include <complex>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "fakecuda.h"

#define API extern "C" __attribute__((visibility("default")))
typedef long blasint;
enum {
    OK = 0,
    NOT_INITIALIZED = 1,
    ALLOC_FAILED = 3,
    INVALID_VALUE = 7,
    EXECUTION_FAILED = 13,
    INTERNAL = 14,
    NOT_SUPPORTED = 15
};
struct Handle {
    void* stream = nullptr;
    int pointer_mode = 0, math_mode = 0;
};

static void* openblas(const char* name) {
    static void* lib = [] {
        const char* path = getenv("FAKECUDA_OPENBLAS");
        return path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    }();
    return lib ? dlsym(lib, name) : nullptr;
}
template <class T>
static T scalar(const void* p) {
    T v;
    memcpy((void*)&v, p, sizeof v);
    return v;
}

// C = alpha op(A) op(B) + beta C, columns first. A is A, S the type of sums.
template <class A, class C, class S>
static void plain(int ta, int tb, long m, long n, long k, S alpha, const A* a, long lda, const A* b, long ldb,
    S beta, C* c, long ldc) {
    auto conj_if = [](S x, int t) {
        if constexpr (std::is_same_v<S, std::complex<float>> || std::is_same_v<S, std::complex<double>>)
            return t == 2 ? std::conj(x) : x;
        else
            return x;
    };
    for (long j = 0; j < n; j++)
        for (long i = 0; i < m; i++) {
            S t{};
            for (long l = 0; l < k; l++) {
                S x = conj_if((S)(ta ? a[l + i * lda] : a[i + l * lda]), ta),
                  y = conj_if((S)(tb ? b[j + l * ldb] : b[l + j * ldb]), tb);
                t += x * y;
            }
            S old = beta == S{} ? S{} : beta * (S)c[i + j * ldc];
            c[i + j * ldc] = (C)(alpha * t + old);
        }
}
static void multiply(int ta, int tb, long m, long n, long k, float alpha, const float* a, long lda,
    const float* b, long ldb, float beta, float* c, long ldc) {
    typedef void (*F)(int, int, int, blasint, blasint, blasint, float, const float*, blasint, const float*,
        blasint, float, float*, blasint);
    static F f = (F)openblas("scipy_cblas_sgemm64_");
    if (f && m && n)
        f(102, 111 + (ta != 0), 111 + (tb != 0), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    else
        plain<float, float, float>(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
static void multiply(int ta, int tb, long m, long n, long k, double alpha, const double* a, long lda,
    const double* b, long ldb, double beta, double* c, long ldc) {
    typedef void (*F)(int, int, int, blasint, blasint, blasint, double, const double*, blasint, const double*,
        blasint, double, double*, blasint);
    static F f = (F)openblas("scipy_cblas_dgemm64_");
    if (f && m && n)
        f(102, 111 + (ta != 0), 111 + (tb != 0), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    else
        plain<double, double, double>(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
template <class T>
static void multiply(int ta, int tb, long m, long n, long k, std::complex<T> alpha, const std::complex<T>* a,
    long lda, const std::complex<T>* b, long ldb, std::complex<T> beta, std::complex<T>* c, long ldc) {
    plain<std::complex<T>, std::complex<T>, std::complex<T>>(
        ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
static void multiply(int ta, int tb, long m, long n, long k, float alpha, const _Float16* a, long lda,
    const _Float16* b, long ldb, float beta, _Float16* c, long ldc) {
    plain<_Float16, _Float16, float>(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

static int done(int e) { return e ? EXECUTION_FAILED : OK; }
static bool sizes_ok(int ta, int tb, long m, long n, long k, long lda, long ldb, long ldc) {
    return m >= 0 && n >= 0 && k >= 0 && lda >= std::max(1L, ta ? k : m) && ldb >= std::max(1L, tb ? n : k) &&
           ldc >= std::max(1L, m);
}
// The memory that a matrix takes, in entries.
static size_t extent(long rows, long columns, long ld) {
    return rows && columns ? (columns - 1) * ld + rows : 0;
}
template <class T>
static bool inside(const T* p, size_t n) {
    return n == 0 || fc_is_device(p, n * sizeof(T));
}

template <class T, class S>
static int gemm(void* handle, const char* name, int ta, int tb, long m, long n, long k, const void* alpha_,
    const T* a, long lda, long sa, const T* b, long ldb, long sb, const void* beta_, T* c, long ldc, long sc,
    long batch) {
    auto h = (Handle*)handle;
    if (!h) return NOT_INITIALIZED;
    if (!sizes_ok(ta, tb, m, n, k, lda, ldb, ldc) || batch < 0) return INVALID_VALUE;
    if (!m || !n || !batch) return OK;
    for (long i : {0L, batch - 1})
        if (!inside(a + i * sa, ta ? extent(k, m, lda) : extent(m, k, lda)) ||
            !inside(b + i * sb, tb ? extent(n, k, ldb) : extent(k, n, ldb)) ||
            !inside(c + i * sc, extent(m, n, ldc))) {
            fprintf(stderr, "[fakecuda] %s: a matrix does not lie in memory of the device\n", name);
            return EXECUTION_FAILED;
        }
    S alpha{}, beta{};
    bool device = h->pointer_mode == 1;
    if (!device) alpha = scalar<S>(alpha_), beta = scalar<S>(beta_);
    static bool long_names = getenv("FAKECUDA_STATS") || getenv("FAKECUDA_TRACE");
    char full[100];
    if (long_names)
        snprintf(full, sizeof full, "%s %s%s %ld %ld %ld", name, ta ? "T" : "N", tb ? "T" : "N", m, n, k),
            name = full;
    return done(fc_submit(h->stream, FC_GEMM, name, [=] {
        S x = device ? scalar<S>(alpha_) : alpha, y = device ? scalar<S>(beta_) : beta;
        for (long i = 0; i < batch; i++)
            multiply(ta, tb, m, n, k, x, a + i * sa, lda, b + i * sb, ldb, y, c + i * sc, ldc);
        return 0;
    }));
}
template <class T>
static int gemm_batched(void* handle, const char* name, int ta, int tb, int m, int n, int k, const T* alpha,
    const T* const* a, int lda, const T* const* b, int ldb, const T* beta, T* const* c, int ldc, int batch) {
    auto h = (Handle*)handle;
    if (!sizes_ok(ta, tb, m, n, k, lda, ldb, ldc)) return INVALID_VALUE;
    T x = scalar<T>(alpha), y = scalar<T>(beta);
    return done(fc_submit(h->stream, FC_GEMM, name, [=] {
        for (int i = 0; i < batch; i++) multiply(ta, tb, m, n, k, x, a[i], lda, b[i], ldb, y, c[i], ldc);
        return 0;
    }));
}
typedef std::complex<float> C;
typedef std::complex<double> Z;

API int cublasCreate_v2(void** h) {
    *h = new Handle;
    return OK;
}
API int cublasDestroy_v2(void* h) {
    delete (Handle*)h;
    return OK;
}
API int cublasGetVersion_v2(void*, int* v) {
    *v = 130000;
    return OK;
}
API int cublasSetStream_v2(void* h, void* s) {
    if (!h) return NOT_INITIALIZED;
    ((Handle*)h)->stream = s;
    return OK;
}
API int cublasGetStream_v2(void* h, void** s) {
    *s = ((Handle*)h)->stream;
    return OK;
}
API int cublasSetWorkspace_v2(void*, void* p, size_t n) {
    return !n || fc_is_device(p, n) ? OK : INVALID_VALUE;
}
API int cublasSetPointerMode_v2(void* h, int m) {
    ((Handle*)h)->pointer_mode = m;
    return OK;
}
API int cublasGetPointerMode_v2(void* h, int* m) {
    *m = ((Handle*)h)->pointer_mode;
    return OK;
}
API int cublasSetMathMode(void* h, int m) {
    if (!h) return NOT_INITIALIZED;
    ((Handle*)h)->math_mode = m;
    return OK;
}
API int cublasGetMathMode(void* h, int* m) {
    *m = ((Handle*)h)->math_mode;
    return OK;
}

#define GEMM(letter, T)                                                                                      \
    API int cublas##letter##gemm_v2(void* h, int ta, int tb, int m, int n, int k, const T* alpha,            \
        const T* a, int lda, const T* b, int ldb, const T* beta, T* c, int ldc) {                            \
        return gemm<T, T>(                                                                                   \
            h, "cublas" #letter "gemm", ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);   \
    }                                                                                                        \
    API int cublas##letter##gemmStridedBatched(void* h, int ta, int tb, int m, int n, int k, const T* alpha, \
        const T* a, int lda, long long sa, const T* b, int ldb, long long sb, const T* beta, T* c, int ldc,  \
        long long sc, int batch) {                                                                           \
        return gemm<T, T>(h, "cublas" #letter "gemmStridedBatched", ta, tb, m, n, k, alpha, a, lda, sa, b,   \
            ldb, sb, beta, c, ldc, sc, batch);                                                               \
    }                                                                                                        \
    API int cublas##letter##gemmBatched(void* h, int ta, int tb, int m, int n, int k, const T* alpha,        \
        const T* const* a, int lda, const T* const* b, int ldb, const T* beta, T* const* c, int ldc,         \
        int batch) {                                                                                         \
        return gemm_batched<T>(                                                                              \
            h, "cublas" #letter "gemmBatched", ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, batch); \
    }                                                                                                        \
    API int cublas##letter##gemv_v2(void* h, int t, int m, int n, const T* alpha, const T* a, int lda,       \
        const T* x, int incx, const T* beta, T* y, int incy) {                                               \
        auto w = (Handle*)h;                                                                                 \
        T al = scalar<T>(alpha), be = scalar<T>(beta);                                                       \
        return done(fc_submit(w->stream, FC_GEMM, "cublas" #letter "gemv", [=] {                             \
            long rows = t ? n : m, inner = t ? m : n;                                                        \
            for (long i = 0; i < rows; i++) {                                                                \
                T s{};                                                                                       \
                for (long l = 0; l < inner; l++)                                                             \
                    s += (t ? a[l + i * (long)lda] : a[i + l * (long)lda]) * x[l * incx];                    \
                y[i * incy] = al * s + (be == T{} ? T{} : be * y[i * incy]);                                 \
            }                                                                                                \
            return 0;                                                                                        \
        }));                                                                                                 \
    }
GEMM(S, float)
GEMM(D, double)
GEMM(C, C)
GEMM(Z, Z)
#define DOT(name, T)                                                                      \
    API int name(void* h, int n, const T* x, int incx, const T* y, int incy, T* result) { \
        auto w = (Handle*)h;                                                              \
        return done(fc_submit(w->stream, FC_GEMM, #name, [=] {                            \
            T s{};                                                                        \
            for (long i = 0; i < n; i++) s += x[i * incx] * y[i * incy];                  \
            *result = s;                                                                  \
            return 0;                                                                     \
        }));                                                                              \
    }
DOT(cublasSdot_v2, float)
DOT(cublasDdot_v2, double)
DOT(cublasCdotu_v2, C)
DOT(cublasZdotu_v2, Z)

// cudaDataType: 0 float, 1 double, 2 half, 4 complex float, 5 complex double
static int gemm_ex(void* h, const char* name, int ta, int tb, int m, int n, int k, const void* alpha,
    const void* a, int at, int lda, long long sa, const void* b, int bt, int ldb, long long sb,
    const void* beta, void* c, int ct, int ldc, long long sc, int batch) {
    if (at != bt || at != ct) return NOT_SUPPORTED;
    switch (at) {
        case 0:
            return gemm<float, float>(h, name, ta, tb, m, n, k, alpha, (const float*)a, lda, sa,
                (const float*)b, ldb, sb, beta, (float*)c, ldc, sc, batch);
        case 1:
            return gemm<double, double>(h, name, ta, tb, m, n, k, alpha, (const double*)a, lda, sa,
                (const double*)b, ldb, sb, beta, (double*)c, ldc, sc, batch);
        case 2:
            return gemm<_Float16, float>(h, name, ta, tb, m, n, k, alpha, (const _Float16*)a, lda, sa,
                (const _Float16*)b, ldb, sb, beta, (_Float16*)c, ldc, sc, batch);
        case 4:
            return gemm<C, C>(h, name, ta, tb, m, n, k, alpha, (const C*)a, lda, sa, (const C*)b, ldb, sb,
                beta, (C*)c, ldc, sc, batch);
        case 5:
            return gemm<Z, Z>(h, name, ta, tb, m, n, k, alpha, (const Z*)a, lda, sa, (const Z*)b, ldb, sb,
                beta, (Z*)c, ldc, sc, batch);
    }
    return NOT_SUPPORTED;
}
API int cublasGemmEx(void* h, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int at,
    int lda, const void* b, int bt, int ldb, const void* beta, void* c, int ct, int ldc, int compute,
    int algo) {
    return gemm_ex(
        h, "cublasGemmEx", ta, tb, m, n, k, alpha, a, at, lda, 0, b, bt, ldb, 0, beta, c, ct, ldc, 0, 1);
}
API int cublasSgemmEx(void* h, int ta, int tb, int m, int n, int k, const float* alpha, const void* a, int at,
    int lda, const void* b, int bt, int ldb, const float* beta, void* c, int ct, int ldc) {
    return gemm_ex(
        h, "cublasSgemmEx", ta, tb, m, n, k, alpha, a, at, lda, 0, b, bt, ldb, 0, beta, c, ct, ldc, 0, 1);
}
API int cublasGemmStridedBatchedEx(void* h, int ta, int tb, int m, int n, int k, const void* alpha,
    const void* a, int at, int lda, long long sa, const void* b, int bt, int ldb, long long sb,
    const void* beta, void* c, int ct, int ldc, long long sc, int batch, int compute, int algo) {
    return gemm_ex(h, "cublasGemmStridedBatchedEx", ta, tb, m, n, k, alpha, a, at, lda, sa, b, bt, ldb, sb,
        beta, c, ct, ldc, sc, batch);
}
