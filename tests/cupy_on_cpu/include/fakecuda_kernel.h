// What libfakecuda and a compiled kernel know of each other. Both include this file.
#pragma once

struct FCDim {
    unsigned x, y, z;
};

// Where the thread that runs stands: threadIdx and the like.
struct FCVars {
    FCDim tid, bid, bdim, gdim;
    unsigned lane, warp;
    char* dyn;  // shared memory whose size the launch says
};

// What a thread asks of who plays it.
struct FCApi {
    void (*sync_block)();
    void (*sync_warp)(unsigned mask);
    void* (*warp_slot)(unsigned lane);  // 64 bytes of exchange for each lane of the own warp
    unsigned (*live_mask)();
    void (*fence)();
    void (*counted)();
    void (*trap)(const char*);
};

struct FCKernel {
    const char* name;
    void (*thread)(void** args);
    int nargs;
    const unsigned* sizes;
    const char* kinds;  // of each argument: 'P' a pointer, 'V' a value
    int whole;          // one call does the work of all threads (the loops over a grid that CuPy writes)
};

// In each library that g++ made of a kernel's source: fc_table.
struct FCTable {
    FCVars* vars;
    const FCApi** api;
    const FCKernel* kernels;
    int nkernels;
};
