// A launch of a kernel: all its threads, played by one thread of the CPU.
#include <link.h>
#include <sys/mman.h>

#include <algorithm>

#include "fakecuda.h"

// A fiber, that is a stack, plays threads one after the other, until one has to wait: that thread keeps the
// fiber, and another fiber goes on with the next thread. So a kernel without __syncthreads costs one change of
// fibers a block. Who comes first is the order, a number:
//
//     0         one block after the other, and in each the threads from the first to the last
//     1         the same from the last to the first
//     others    four blocks at a time, by turns of different length; in each the threads are shuffled. The
//               number says how. A block that has counted (atomicInc) may fall asleep until nobody else can go
//               on: what it has not written by then, it writes too late.
//
// A kernel that forgets to wait, or relies on which block comes last, gives different results then.
//
// On a CPU everybody sees at once what anybody writes. On a GPU that takes a __threadfence(). So a launch fails
// without one before each atomicInc and one behind it, with no __syncthreads() between. (A kernel that only
// counts needs none. So this is watched only after fakecuda_order.)
extern "C" void fc_switch(void** save, void* to);
asm(R"(
.text
.hidden fc_switch
.globl fc_switch
fc_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

static const unsigned MOST = 1024, SEATS = 4;  // threads of a block, blocks at a time
static const size_t STACK = 256 << 10, DYNAMIC = 256 << 10;
enum State { FRESH, READY, AT_BLOCK, AT_WARP, DONE };
struct Thread {
    void* sp;
    State state;
    int stack;
    unsigned mask;
    bool fenced, counted;  // since the last __syncthreads: a fence; atomicInc, and no fence after it
};
// A block that has begun.
struct Seat {
    bool taken;
    FCDim block;
    unsigned queue[MOST], begun, done;  // its threads in the order of their turns; how many have begun, ended
    Thread threads[MOST];
    char warp_slots[MOST][64];
    char* dynamic;           // shared memory of a size that the launch says
    std::vector<char> kept;  // other shared memory, while another block plays
};
static Seat seats[SEATS], *seat;  // all, and the one that plays
static char* stacks;
static std::vector<int> free_stacks;
static void* scheduler_sp;
static unsigned block_threads;
static int current = -1, current_stack;
static FCVars* vars;
static const FCKernel* playing;
static void** play_args;
static std::string trouble;
static int order;
static bool watched, unfenced, drowsy;  // drowsy: somebody has counted just now

API void fakecuda_order(int number) {
    Hold hold(big);
    order = std::max(number, 0);
    watched = number >= 0;
}

// ---- one thread

static void enter_thread(int t) {
    current = t;
    FCDim b = vars->bdim;
    vars->tid = {t % b.x, t / b.x % b.y, t / b.x / b.y};
    vars->lane = t % 32;
    vars->warp = t / 32;
}
static void fiber_main() {
    for (;;) {
        do {
            int t = seat->queue[seat->begun++];
            seat->threads[t].state = READY;
            enter_thread(t);
            playing->thread(play_args);
            unfenced |= seat->threads[current].counted;
            seat->threads[current].state = DONE;
            seat->done++;
        } while (seat->begun < block_threads && order < 2);
        free_stacks.push_back(current_stack);
        void* dead;
        fc_switch(&dead, scheduler_sp);  // the stack begins anew for the next fiber
    }
}
static void start_fiber() {
    int s = free_stacks.back();
    free_stacks.pop_back();
    current_stack = s;
    void** top = (void**)(stacks + (s + 1) * STACK);
    *--top = nullptr;  // where a return address would be: so the stack is aligned
    *--top = (void*)fiber_main;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    fc_switch(&scheduler_sp, top);
}
static void park(State state, unsigned mask = 0) {
    int t = current;
    Thread& thread = seat->threads[t];
    thread.state = state;
    thread.mask = mask;
    thread.stack = current_stack;
    fc_switch(&thread.sp, scheduler_sp);
    current_stack = thread.stack;
    enter_thread(t);
}

// ---- what a thread asks for; a kernel that is played as a whole (current < 0) has nobody to wait for

static void api_sync_block() {
    if (current < 0) return;
    Thread& thread = seat->threads[current];
    unfenced |= thread.counted;
    thread.fenced = false;
    park(AT_BLOCK);
}
static void api_sync_warp(unsigned mask) {
    if (current >= 0) park(AT_WARP, mask);
}
static void* api_warp_slot(unsigned lane) { return seat->warp_slots[current / 32 * 32 + lane % 32]; }
static unsigned api_live_mask() {
    unsigned mask = 0, w = current / 32 * 32;
    for (unsigned i = 0; i < 32 && w + i < block_threads; i++)
        if (seat->threads[w + i].state != DONE) mask |= 1u << i;
    return mask;
}
static void api_fence() {
    if (current < 0) return;
    seat->threads[current].fenced = true;
    seat->threads[current].counted = false;
    if (order > 1) park(READY);
}
static void api_counted() {
    if (current < 0) return;
    unfenced |= !seat->threads[current].fenced;
    seat->threads[current].counted = true;
    if (order > 1) {
        drowsy = true;
        park(READY);
    }
}
static void api_trap(const char* what) {
    if (trouble.empty()) trouble = what;
}
const FCApi fc_api = {
    api_sync_block, api_sync_warp, api_warp_slot, api_live_mask, api_fence, api_counted, api_trap};

// ---- one block

static uint64_t dice;
static unsigned roll(unsigned sides) {  // the upper bits of a product (Knuth's numbers)
    dice = dice * 6364136223846793005ull + 1442695040888963407ull;
    return (dice >> 33) % sides;
}
static void line_up() {
    for (unsigned t = 0; t < block_threads; t++) seat->queue[t] = order == 1 ? block_threads - 1 - t : t;
    if (order > 1)
        for (unsigned t = block_threads - 1; t > 0; t--) std::swap(seat->queue[t], seat->queue[roll(t + 1)]);
}
static void begin_block(unsigned b) {
    FCDim grid = vars->gdim;
    seat->taken = true;
    seat->block = vars->bid = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    seat->begun = seat->done = 0;
    for (unsigned t = 0; t < block_threads; t++) seat->threads[t] = {};
    line_up();
}
// Threads of one warp that have met go on.
static bool release_warps() {
    bool any = false;
    for (unsigned w = 0; w < block_threads; w += 32) {
        unsigned here = 0, live = 0;
        for (unsigned i = 0; i < 32 && w + i < block_threads; i++) {
            if (seat->threads[w + i].state != DONE) live |= 1u << i;
            if (seat->threads[w + i].state == AT_WARP) here |= 1u << i;
        }
        for (unsigned i = 0; i < 32 && w + i < block_threads; i++) {
            Thread& t = seat->threads[w + i];
            if (t.state != AT_WARP || (t.mask & live & ~here)) continue;
            t.state = READY;
            any = true;
        }
    }
    return any;
}
// If all threads of the block have met or ended, they go on.
static bool release_block() {
    unsigned waiting = 0;
    for (unsigned t = 0; t < block_threads; t++) waiting += seat->threads[t].state == AT_BLOCK;
    if (waiting + seat->done < block_threads) return false;
    for (unsigned t = 0; t < block_threads; t++)
        if (seat->threads[t].state == AT_BLOCK) seat->threads[t].state = READY;
    line_up();
    return true;
}
// The block plays on: to its end, or, where others play at the same time, so many turns.
static void play_block(unsigned turns) {
    drowsy = false;
    while (seat->done < block_threads) {
        bool progress = false;
        while (seat->begun < block_threads) {
            if (drowsy || (order > 1 && turns-- == 0)) return;
            progress = true;
            start_fiber();
        }
        for (unsigned i = 0; i < block_threads; i++) {
            Thread& thread = seat->threads[seat->queue[i]];
            if (thread.state != READY) continue;
            if (drowsy || (order > 1 && turns-- == 0)) return;
            progress = true;
            fc_switch(&scheduler_sp, thread.sp);
        }
        if (progress || release_warps() || release_block()) continue;
        trouble = "threads wait for each other for ever";
        break;
    }
    seat->taken = false;
}

// ---- the grid

// What is __shared__ is static in the library of the kernel: it lies among what can be written to there.
struct Span {
    const void* inside;
    char *begin, *end;
};
static int find_span(dl_phdr_info* info, size_t, void* data) {
    Span* span = (Span*)data;
    char *begin = nullptr, *end = nullptr, *relro = nullptr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const auto& part = info->dlpi_phdr[i];
        char* at = (char*)info->dlpi_addr + part.p_vaddr;
        if (part.p_type == PT_LOAD && (part.p_flags & PF_W)) begin = at, end = at + part.p_memsz;
        if (part.p_type == PT_GNU_RELRO) relro = (char*)(((uintptr_t)at + part.p_memsz + 4095) & ~4095ull);
    }
    if (span->inside < begin || span->inside >= end) return 0;
    span->begin = std::max(begin, relro);
    span->end = end;
    return 1;
}
static void play_by_turns(const FCTable* table, unsigned blocks) {
    Span shared{table->vars, nullptr, nullptr};
    dl_iterate_phdr(find_span, &shared);
    dice = order;
    unsigned begun = 0, ended = 0, asleep = SEATS;
    while (ended < blocks && trouble.empty()) {
        unsigned s = roll(SEATS);
        if (s == asleep && (begun < blocks || blocks - ended > 1)) continue;
        if (!seats[s].taken && begun == blocks) continue;
        if (seat != &seats[s]) {
            seat->kept.assign(shared.begin, shared.end);
            seat = &seats[s];
            FCVars now = *vars;
            if (seat->kept.size()) memcpy(shared.begin, seat->kept.data(), seat->kept.size());
            *vars = now;
            vars->bid = seat->block;
            vars->dyn = seat->dynamic;
        }
        if (!seat->taken) begin_block(begun++);
        play_block(1 << roll(12));
        ended += !seat->taken;
        if (s == asleep) asleep = SEATS;
        if (seat->taken && drowsy && asleep == SEATS && roll(2) == 0) asleep = s;
    }
    for (Seat& s : seats) s.taken = false, s.kept.clear();
}
int run_kernel(const FCTable* table, const FCKernel* k, FCDim grid, FCDim block, void** args) {
    if (!stacks) {
        const int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        stacks = (char*)mmap(nullptr, SEATS * MOST * STACK, PROT_READ | PROT_WRITE, how, -1, 0);
        for (unsigned i = 0; i < SEATS * MOST; i++) free_stacks.push_back(SEATS * MOST - 1 - i);
        for (Seat& s : seats)
            s.dynamic = (char*)mmap(nullptr, DYNAMIC, PROT_READ | PROT_WRITE, how, -1, 0);
    }
    seat = &seats[0];
    vars = table->vars;
    vars->dyn = seat->dynamic;
    playing = k;
    play_args = args;
    trouble.clear();
    unfenced = false;
    if (k->whole) {
        vars->tid = vars->bid = {0, 0, 0};
        vars->bdim = vars->gdim = {1, 1, 1};
        current = -1;
        k->thread(args);
    } else {
        vars->bdim = block;
        vars->gdim = grid;
        block_threads = block.x * block.y * block.z;
        const unsigned blocks = grid.x * grid.y * grid.z;
        if (order > 1)
            play_by_turns(table, blocks);
        else
            for (unsigned b = 0; b < blocks && trouble.empty(); b++) {
                begin_block(order == 1 ? blocks - 1 - b : b);
                play_block(0);
            }
        current = -1;
    }
    if (trouble.empty() && !(watched && unfenced)) return 0;
    const bool lost = !trouble.empty();
    fprintf(stderr, "[fakecuda] kernel %s: %s\n", k->name,
        lost ? trouble.c_str() : "atomicInc without a __threadfence before and after it");
    return lost ? cudaErrorLaunchFailure : cudaErrorUnknown;
}
