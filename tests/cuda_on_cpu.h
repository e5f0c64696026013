// CUDA on a CPU, as far as gpu/kernels.cu needs it: put before that file, it makes it ordinary C++ for g++.
//
// One thread of the CPU plays all threads of all blocks. Each has a stack of its own, so that it can stop at
// __syncthreads() and go on later. Who goes on when is the `order`, a number:
//
//     0         one block after the other, and in each the threads from the first to the last
//     1         the same from the last to the first
//     others    four blocks at a time, by turns of different length; in each the threads are shuffled between
//               any two __syncthreads(). The number says how. A block that has counted may fall asleep until
//               nobody else can go on: what it has not written by then, it writes too late.
//
// A kernel that forgets to wait, or relies on which block comes last, gives different results then.
//
// On a CPU everybody sees at once what anybody writes. On a GPU that takes a __threadfence(). So this is
// watched instead: one must come before each atomicInc and one behind it, with no __syncthreads() between.
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <initializer_list>  // without vectors and the like, it compiles twice as fast
using namespace std;

#define __global__
#define __device__
#define __shared__ static __attribute__((section("shared_memory")))
#define __launch_bounds__(threads)

struct Three {
    unsigned x, y, z;
};
static Three threadIdx, blockIdx, blockDim, gridDim;

static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
static inline float cospif(float x) { return (float)cos(M_PI * x); }
static inline float sinpif(float x) { return (float)sin(M_PI * x); }

// ------------------------------------------------------------------------------------------ taking turns

// An actor for each thread, a director who says whose turn it is. The actors stay from block to block.
// makecontext gives an actor his stack; afterwards they change places by longjmp, which is quick.
static const unsigned MOST = 1024, SEATS = 4;  // threads of a block, blocks at a time
static const size_t STACK = 16 << 10;

struct Actor {
    jmp_buf place;
    bool there, waits, ended;
    bool fenced, counted;  // since the last __syncthreads: a fence; atomicInc, and no fence after it
};
static Actor actors[SEATS * MOST];
static char stacks[SEATS * MOST][STACK];
static ucontext_t beginning, entrances[SEATS * MOST];
static jmp_buf director;
static Actor* on_stage;
static bool unfenced;  // somebody was found who had not fenced
static bool drowsy;    // somebody has counted
static void (*part)();

static void pause() {
    if (_setjmp(on_stage->place) == 0) _longjmp(director, 1);
}

static void __syncthreads() {
    unfenced |= on_stage->counted;
    on_stage->fenced = false;
    on_stage->waits = true;
    pause();
}

static void __threadfence() {
    on_stage->fenced = true;
    on_stage->counted = false;
    pause();
}

static unsigned atomicInc(unsigned* at, unsigned last) {
    unfenced |= !on_stage->fenced;
    on_stage->counted = true;
    const unsigned old = *at;
    *at = old >= last ? 0 : old + 1;
    drowsy = true;
    pause();
    return old;
}

static void act() {
    for (;;) {
        part();
        unfenced |= on_stage->counted;
        on_stage->ended = true;
        pause();
    }
}

static void enter(unsigned actor, unsigned t) {
    on_stage = &actors[actor];
    threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
    if (_setjmp(director) != 0) return;  // the actor has left the stage
    if (on_stage->there) _longjmp(on_stage->place, 1);
    on_stage->there = true;
    ucontext_t& entrance = entrances[actor];
    getcontext(&entrance);
    entrance.uc_stack.ss_sp = stacks[actor];
    entrance.uc_stack.ss_size = STACK;
    makecontext(&entrance, act, 0);
    swapcontext(&beginning, &entrance);
}

// Random numbers: the upper bits of a product (Knuth's numbers).
static unsigned long long dice;
static unsigned roll(unsigned sides) {
    dice = dice * 6364136223846793005ULL + 1442695040888963407ULL;
    return (dice >> 33) % sides;
}

static void swap(unsigned& a, unsigned& b) {
    const unsigned old = a;
    a = b;
    b = old;
}

// What the threads of a block share lies in one section of memory. The block that plays has it there; for
// the others it is kept.
extern char __start_shared_memory[] __attribute__((visibility("hidden")));
extern char __stop_shared_memory[] __attribute__((visibility("hidden")));
static size_t shared_size() { return __stop_shared_memory - __start_shared_memory; }

// A block that has begun. queue: its threads in the order of their turns, until all wait or have ended.
struct Seat {
    bool taken;
    Three block;
    unsigned queue[2 * MOST], next, end;
    char kept[1 << 17];
};
static Seat seats[SEATS];
static unsigned playing;  // whose shared memory is in place

static unsigned block_size() { return blockDim.x * blockDim.y * blockDim.z; }

static void line_up(Seat& seat, int order) {
    const unsigned size = block_size();
    seat.next = 0;
    seat.end = size;
    for (unsigned t = 0; t < size; t++) seat.queue[t] = order == 1 ? size - 1 - t : t;
    if (order > 1)
        for (unsigned t = size - 1; t > 0; t--) swap(seat.queue[t], seat.queue[roll(t + 1)]);
}

static void begin_block(Seat& seat, unsigned b, int order) {
    seat.taken = true;
    seat.block = {b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
    char* memory = &seat == &seats[playing] ? __start_shared_memory : seat.kept;
    memset(memory, 0xFF, shared_size());  // what was there before is of no use
    for (unsigned t = 0; t < MOST; t++) {
        Actor& actor = actors[(&seat - seats) * MOST + t];
        actor.waits = actor.ended = actor.fenced = actor.counted = false;
    }
    line_up(seat, order);
}

// So many turns of the block on this seat. False if some threads had ended while others waited for them.
static bool play_turns(unsigned s, unsigned turns, int order) {
    Seat& seat = seats[s];
    if (playing != s) {
        memcpy(seats[playing].kept, __start_shared_memory, shared_size());
        memcpy(__start_shared_memory, seat.kept, shared_size());
        playing = s;
    }
    blockIdx = seat.block;
    for (drowsy = false; turns > 0 && !drowsy && seat.next < seat.end; turns--) {
        const unsigned t = seat.queue[seat.next++], actor = s * MOST + t;
        enter(actor, t);
        if (actors[actor].waits || actors[actor].ended) continue;
        if (seat.end == 2 * MOST) return false;
        seat.queue[seat.end++] = t;
        if (order > 1) swap(seat.queue[seat.end - 1], seat.queue[seat.next + roll(seat.end - seat.next)]);
    }
    if (seat.next < seat.end) return true;
    const unsigned size = block_size();
    unsigned ended = 0;
    for (unsigned t = 0; t < size; t++) {
        ended += actors[s * MOST + t].ended;
        actors[s * MOST + t].waits = false;
    }
    seat.taken = ended < size;
    if (seat.taken) line_up(seat, order);
    return ended == 0 || ended == size;
}

// All blocks. 0, or what went wrong.
static int play_grid(int order) {
    const unsigned blocks = gridDim.x * gridDim.y * gridDim.z, used = order > 1 ? SEATS : 1;
    if (shared_size() > sizeof seats[0].kept) return 3;
    dice = order;
    unfenced = false;
    unsigned begun = 0, ended = 0, asleep = SEATS;
    while (ended < blocks) {
        const unsigned s = used > 1 ? roll(used) : 0;
        if (s == asleep && (begun < blocks || blocks - ended > 1)) continue;
        if (!seats[s].taken) {
            if (begun == blocks) continue;
            begin_block(seats[s], order == 1 ? blocks - 1 - begun : begun, order);
            begun++;
        }
        if (!play_turns(s, used > 1 ? 1 << roll(12) : 1 << 30, order)) {
            for (Actor& actor : actors) actor.there = false;  // who still waits will not come back
            for (Seat& seat : seats) seat.taken = false;
            return 1;
        }
        ended += !seats[s].taken;
        if (s == asleep) asleep = SEATS;
        if (used > 1 && drowsy && asleep == SEATS && roll(2) == 0) asleep = s;
    }
    return unfenced ? 2 : 0;
}

// ----------------------------------------------------------------------------------- from Python to a kernel

// Text for each parameter: a letter, as in Python's struct module; P and a letter for a pointer; s and a size
// for what is passed by value otherwise.
template <class T> struct Letter { static void put(char* text) { sprintf(text, "s%zu", sizeof(T)); } };
template <> struct Letter<float> { static void put(char* text) { strcpy(text, "f"); } };
template <> struct Letter<double> { static void put(char* text) { strcpy(text, "d"); } };
template <> struct Letter<long long> { static void put(char* text) { strcpy(text, "q"); } };
template <> struct Letter<unsigned long long> { static void put(char* text) { strcpy(text, "Q"); } };
template <> struct Letter<unsigned> { static void put(char* text) { strcpy(text, "I"); } };
template <> struct Letter<unsigned char> { static void put(char* text) { strcpy(text, "B"); } };
template <class T> struct Letter<const T> : Letter<T> {};
template <class T> struct Letter<T*> {
    static void put(char* text) {
        *text = 'P';
        Letter<T>::put(text + 1);
    }
};

// All of them, with spaces between them.
template <class... A> static void put_letters(void (*)(A...), char* text) {
    *text = 0;
    for (void (*put)(char*) : {&Letter<A>::put...}) {
        put(text + strlen(text));
        strcat(text, " ");
    }
}

template <size_t...> struct Numbers {};
template <size_t N, size_t... I> struct UpTo : UpTo<N - 1, N - 1, I...> {};
template <size_t... I> struct UpTo<0, I...> { typedef Numbers<I...> type; };

// The kernel with its arguments, each given by its address, as the CUDA driver wants them.
template <class... A, size_t... I> static void call(void (*kernel)(A...), void** args, Numbers<I...>) {
    kernel(*(A*)args[I]...);
}

template <class F> struct Stage;
template <class... A> struct Stage<void (*)(A...)> {
    static void (*kernel)(A...);
    static void** args;
    static void play() { call(kernel, args, typename UpTo<sizeof...(A)>::type()); }
};
template <class... A> void (*Stage<void (*)(A...)>::kernel)(A...);
template <class... A> void** Stage<void (*)(A...)>::args;

template <class... A>
static int play(void (*kernel)(A...), const unsigned* shape, void** args, int order) {
    typedef Stage<void (*)(A...)> Here;
    Here::kernel = kernel;
    Here::args = args;
    part = Here::play;
    gridDim = {shape[0], shape[1], shape[2]};
    blockDim = {shape[3], shape[4], shape[5]};
    return play_grid(order);
}

// Put behind cuda.cu, once for each kernel: how to call it, and what it wants.
#define PLAYED(name)                                                                                   \
    extern "C" int play_##name(const unsigned* shape, void** args, int order) {                        \
        return play(name, shape, args, order);                                                         \
    }                                                                                                  \
    extern "C" const char* letters_##name() {                                                          \
        static char text[256];                                                                         \
        put_letters(name, text);                                                                       \
        return text;                                                                                   \
    }
