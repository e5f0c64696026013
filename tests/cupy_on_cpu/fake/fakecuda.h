// What the parts of libfakecuda tell each other.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "../include/fakecuda_kernel.h"

#define API extern "C" __attribute__((visibility("default")))

inline bool env_on(const char* name) {
    const char* v = getenv(name);
    return v && *v && strcmp(v, "0") != 0;
}

// One call of CUDA at a time.
extern std::recursive_mutex big;
typedef std::lock_guard<std::recursive_mutex> Hold;

// ---- counts.cpp
enum FCKind {
    FC_LAUNCH,
    FC_GEMM,
    FC_H2D,
    FC_D2H,
    FC_D2D,
    FC_H2H,
    FC_MEMSET,
    FC_STREAM_SYNC,
    FC_DEVICE_SYNC,
    FC_EVENT_SYNC,
    FC_SYNC_COPY,
    FC_MALLOC,
    FC_FREE,
    FC_HOST_ALLOC,
    FC_GRAPH_LAUNCH,
    FC_GRAPH_NODE,
    FC_MODULE_LOAD,
    FC_COMPILE,
    FC_LIBRARY,
    FC_EVENT_RECORD,
    FC_NKINDS
};
void fc_count(FCKind kind, const std::string& name);
void fc_time(FCKind kind, const std::string& name, double milliseconds);
extern bool stats_on;  // FAKECUDA_STATS

// ---- memory.cpp
struct Block {
    size_t size;
    int kind;
    void* map;
    size_t length;
};  // kind: cudaMemoryType
extern std::map<uintptr_t, Block>& blocks();
const std::pair<const uintptr_t, Block>* find_block(const void* p);
bool fc_is_device(const void* p, size_t bytes);
extern size_t used_memory, total_memory;

// ---- streams.cpp
struct Node {
    FCKind kind;
    std::string name;
    std::function<int()> work;
};
struct GraphRec {
    std::vector<Node> nodes;
};
extern cudaError_t sticky;  // an illegal access kills the context: this is what each call says from then on
cudaError_t E(int error);   // the error, remembered as the last one
int unsafe_call();          // the error for a call that no recording in a strict mode allows
// Do something in the order of a stream: now, or, if the stream is being recorded, at each replay.
// Returns a cudaError_t.
int fc_submit(void* stream, FCKind kind, const std::string& name, std::function<int()> work);

// ---- runtime.cpp
int cuda_version();
bool hidden();  // CUDA_VISIBLE_DEVICES="" hides the device
int not_emulated(const char* name);

// ---- threads.cpp
extern const FCApi fc_api;
int run_kernel(const FCTable* table, const FCKernel* k, FCDim grid, FCDim block, void** args);

// ---- nvrtc.cpp
extern const char FC_PTX[], FC_MAGIC[8];  // how "PTX" and "a cubin" begin
const size_t FC_PTX_LENGTH = 45;
uint64_t fc_hash(const std::string& s, uint64_t start = 14695981039346656037ull);
std::string read_file(const std::string& path);
std::string cache_folder();
