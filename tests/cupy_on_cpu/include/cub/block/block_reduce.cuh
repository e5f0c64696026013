// As much of CUB as CuPy's reductions use.
#pragma once
#include "fakecuda_device.h"
namespace cub {
template <class T, int BLOCK, int ALGORITHM = 0, int Y = 1, int Z = 1>
struct BlockReduce {
    struct TempStorage {
        alignas(16) char room[sizeof(T) * BLOCK];
    };
    TempStorage& temp;
    explicit BlockReduce(TempStorage& t) : temp(t) {}
    template <class Op>
    T Reduce(T mine, Op op) {
        T* all = reinterpret_cast<T*>(temp.room);
        const unsigned t = threadIdx.x, n = blockDim.x;
        memcpy((void*)&all[t], &mine, sizeof(T));
        __syncthreads();
        for (unsigned half = 1; half < n; half *= 2) {  // neighbours first: in order
            if (t % (2 * half) == 0 && t + half < n) {
                T both = op(all[t], all[t + half]);
                memcpy((void*)&all[t], &both, sizeof(T));
            }
            __syncthreads();
        }
        T result = all[0];
        __syncthreads();
        return result;
    }
    template <int N, class Op>
    T Reduce(T (&items)[N], Op op) {
        T mine = items[0];
        for (int i = 1; i < N; i++) mine = op(mine, items[i]);
        return Reduce(mine, op);
    }
};
}  // namespace cub
