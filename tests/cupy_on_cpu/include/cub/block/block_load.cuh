#pragma once
#include "fakecuda_device.h"
namespace cub {
enum BlockLoadAlgorithm { BLOCK_LOAD_DIRECT };
template <class T, int BLOCK, int N, BlockLoadAlgorithm A = BLOCK_LOAD_DIRECT>
struct BlockLoad {
    struct TempStorage {
        char nothing;
    };
    explicit BlockLoad(TempStorage&) {}
    template <class In, class Default>
    void Load(In from, T (&items)[N], int valid, Default other) {
        for (int i = 0; i < N; i++) {
            const int at = threadIdx.x * N + i;
            if (at < valid)
                items[i] = from[at];
            else
                items[i] = other;
        }
    }
};
}  // namespace cub
