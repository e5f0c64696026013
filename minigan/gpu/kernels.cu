// What a GPU computes with kernels of our own, in CUDA C++. kernels.py compiles this file and starts what is
// in it.
//
// HOW A GPU WORKS, as far as this file needs it
//
// A kernel is a function that very many threads run at once. The threads come in blocks; the blocks make up
// the grid. Each thread learns from threadIdx (which thread of its block), blockIdx (which block), blockDim
// and gridDim (how many there are) what part of the work is its own. Here a block has 256 threads, if nothing
// else is said. Blocks run in any order and do not wait for each other. The threads of one block can: at
// __syncthreads() each waits for all. They also share a little memory of their own, declared __shared__.
//
// Memory is slow, arithmetic is not. 32 neighbouring threads (x runs first, then y) run in step. When they
// read 32 neighbouring addresses, that is one access to memory; when they read here and there, it is 32. So
// neighbouring threads take neighbouring entries, nearly everywhere in this file.
//
// SUMS, IN TWO STAGES
//
// Most sums here are one per channel, over a tall matrix: a row for each pixel of each image, a column for
// each channel. There may be a million rows and three channels. With one thread for each channel, most of the
// GPU would have nothing to do. So the rows are shared out among many blocks, and a block is a rectangle of
// threads: x counts channels, y counts rows.
//
//     stage 1    Each thread adds up every blockDim.y-th row of its block's share, for its channel. Then the
//                rectangle is folded in half, lower half onto upper half, until one row of sums is left.
//                These are the sums of the block's share. They go to memory: a row of `parts` for each block.
//     stage 2    `parts` is itself a matrix, a short one, whose columns are added up in the same way.
//
// Stage 2 cannot begin before all of stage 1 is done. Blocks cannot wait for each other, but they can count.
// Each block that has written its row takes a number from a counter. Whoever draws the last number knows that
// all others have written, and does stage 2. So both stages are one launch. (See is_last.)
//
// Which block comes last differs from time to time. The result does not, since every sum is taken in a fixed
// order, whoever takes it: the same input gives the same bits. (If each block added its row to the result,
// with atomics, there would be no stage 2. But then the order of the sum would be that in which they come.)
//
// CONVENTIONS
//
// REAL is float or double. The file is compiled once for each. Whole numbers come as 64 bits (an array may
// have more than 2^31 entries), other numbers as double: that is what CuPy makes of Python's int and float.
// What meets the numbers of an array is computed in REAL. A pointer that may be null says so. "extern C"
// keeps the names as they are written here.

#ifndef REAL
#define REAL float
#endif

typedef long long Index;
typedef unsigned long long Word;

#define THREADS 256
#define PIECES 16         // pieces of memory that one launch of adam or averages takes
#define PIECE_BLOCK 1024  // entries of a piece that one block takes

// --------------------------------------------------------------------------- a rectangle of threads, folded
//
// In batch normalisation arrays are matrices of `rows` rows and `channels` columns, row after row in memory.
// The grid: x counts groups of blockDim.x channels, y counts shares of `share` rows.

// The channel that is this thread's own; it may lie beyond the last one.
__device__ Index own_channel() { return (Index)blockIdx.x * blockDim.x + threadIdx.x; }

// The first row that is this thread's own. It goes on in steps of blockDim.y.
__device__ Index first_row(Index share) { return blockIdx.y * share + threadIdx.y; }

// The row before which this thread stops.
__device__ Index last_row(Index rows, Index share) {
    const Index end = (blockIdx.y + 1) * share;
    return end < rows ? end : rows;
}

// The place of this thread in shared memory.
__device__ unsigned own_place() { return threadIdx.y * blockDim.x + threadIdx.x; }

// The sum of `value` over the threads with the same x, for the threads with y = 0. All threads must come
// here. room: shared, a number for each thread. blockDim.y is a power of two.
__device__ REAL fold(REAL value, REAL* room) {
    const unsigned here = own_place();
    room[here] = value;
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) room[here] += room[here + half * blockDim.x];
    }
    return room[here];
}

// The sums of the columns of a matrix, over the rows from `begin` to before `end`; each for the thread of its
// column with y = 0. All threads must come here. room: shared.
__device__ REAL column_sum(const REAL* matrix, Index channels, Index begin, Index end, REAL* room) {
    const Index c = own_channel();
    REAL total = 0;
    if (c < channels)
        for (Index r = begin + threadIdx.y; r < end; r += blockDim.y) total += matrix[r * channels + c];
    return fold(total, room);
}

// Whether this block is the last of those with its blockIdx.x to come here. All threads must come here.
// If so, it finds in memory what all of them wrote before they came.
//
// done: counters that are zero when the kernel starts, one for each blockIdx.x. atomicInc tells the number
// before it counts on, and when it has come to its second argument, it goes back to zero. So the last block
// leaves zero for the next launch.
//
// A block that others see in the counter must have written its results where they see them. First
// __syncthreads waits for all threads of the block. Then __threadfence sees to it that whatever was written
// until now comes before the counter, in the eyes of all blocks. The second one is its counterpart: what is
// read from now on is read after the counter, and not from a cache that is older.
__device__ bool is_last(unsigned* done) {
    __shared__ bool last;
    __syncthreads();
    if (own_place() == 0) {
        __threadfence();
        last = atomicInc(&done[blockIdx.x], gridDim.y - 1) == gridDim.y - 1;
        __threadfence();
    }
    __syncthreads();
    return last;
}

// ----------------------------------------------------------------------------------- batch normalisation

// Some numbers, summed up: how many they are, their mean, and the sum of (number - mean)^2.
// n is REAL as well. Above 2^24 numbers a float rounds it, by less than it rounds the mean.
struct Spread {
    REAL n, mean, squares;
};

// Two heaps of numbers, put together. Chan's formula: with d = b.mean - a.mean and n = a.n + b.n,
//
//     mean = a.mean + d b.n / n        squares = a.squares + b.squares + d^2 a.n b.n / n
//
// The sum of x^2 minus n mean^2 would be less work, but loses all digits where the mean is far from zero.
__device__ Spread together(Spread a, Spread b) {
    if (b.n == 0) return a;  // a thread may have had no row
    const REAL part = b.n / (a.n + b.n), d = b.mean - a.mean;
    Spread both;
    both.n = a.n + b.n;
    both.mean = a.mean + d * part;
    both.squares = a.squares + b.squares + d * d * a.n * part;
    return both;
}

// `fold`, with `together` in place of the sum. room: shared.
__device__ Spread fold_spreads(Spread mine, Spread* room) {
    const unsigned here = own_place();
    room[here] = mine;
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) room[here] = together(room[here], room[here + half * blockDim.x]);
    }
    return room[here];
}

// mu, variance = squares / n and s = 1 / sqrt(variance + eps), for each channel.
// parts, for each share and channel: n, then (for all again) the means, then the squares. done: see is_last.
// Both may be null if there is only one share.
extern "C" __global__ void batch_norm_statistics(
    const REAL* x, REAL* parts, REAL* mu, REAL* variance, REAL* s, unsigned* done, double eps, Index rows,
    Index channels, Index share) {
    __shared__ Spread room[THREADS];
    const Index c = own_channel(), end = last_row(rows, share), shares = gridDim.y, size = shares * channels;
    const bool writes = threadIdx.y == 0 && c < channels;
    Spread mine = {0, 0, 0};
    if (c < channels)
        for (Index r = first_row(share); r < end; r += blockDim.y) {
            const Spread one = {1, x[r * channels + c], 0};
            mine = together(mine, one);
        }
    mine = fold_spreads(mine, room);
    if (shares > 1) {
        if (writes) {
            REAL* part = parts + blockIdx.y * channels + c;
            part[0] = mine.n;
            part[size] = mine.mean;
            part[2 * size] = mine.squares;
        }
        if (!is_last(done)) return;
        mine = {0, 0, 0};
        if (c < channels)
            for (Index b = threadIdx.y; b < shares; b += blockDim.y) {
                const REAL* part = parts + b * channels + c;
                const Spread one = {part[0], part[size], part[2 * size]};
                mine = together(mine, one);
            }
        mine = fold_spreads(mine, room);
    }
    if (writes) {
        mu[c] = mine.mean;
        variance[c] = mine.squares / mine.n;
        s[c] = 1 / sqrt(variance[c] + (REAL)eps);
    }
}

// y = (x - mu) s gamma + beta. gamma and beta may be null.
extern "C" __global__ void batch_norm_apply(
    const REAL* x, const REAL* mu, const REAL* s, const REAL* gamma, const REAL* beta, REAL* y,
    Index rows, Index channels, Index share) {
    const Index c = own_channel(), end = last_row(rows, share);
    if (c >= channels) return;
    const REAL middle = mu[c], scale = gamma ? s[c] * gamma[c] : s[c], shift = beta ? beta[c] : 0;
    for (Index r = first_row(share); r < end; r += blockDim.y)
        y[r * channels + c] = (x[r * channels + c] - middle) * scale + shift;
}

// With T = sum of g and A = sum of g (x - mu), for each channel:
//
//     gamma_bar = A s        beta_bar = T        a = gamma s        b = -a s^2 A / n        c = -a T / n
//
// abc: a for all channels, then b, then c. n is the number of rows. gamma may be null.
// parts, for each share and channel: T, then (for all again) A. done: see is_last. Both may be null if there
// is only one share.
extern "C" __global__ void batch_norm_backward_sums(
    const REAL* g, const REAL* x, const REAL* mu, const REAL* s, const REAL* gamma, REAL* parts,
    REAL* gamma_bar, REAL* beta_bar, REAL* abc, unsigned* done, Index rows, Index channels, Index share) {
    __shared__ REAL room[THREADS], other_room[THREADS];
    const Index c = own_channel(), end = last_row(rows, share), shares = gridDim.y, size = shares * channels;
    const bool writes = threadIdx.y == 0 && c < channels;
    REAL total = 0, along = 0;
    if (c < channels) {
        const REAL middle = mu[c];
        for (Index r = first_row(share); r < end; r += blockDim.y) {
            total += g[r * channels + c];
            along += g[r * channels + c] * (x[r * channels + c] - middle);
        }
    }
    total = fold(total, room);
    along = fold(along, other_room);
    if (shares > 1) {
        if (writes) {
            parts[blockIdx.y * channels + c] = total;
            parts[blockIdx.y * channels + c + size] = along;
        }
        if (!is_last(done)) return;
        total = column_sum(parts, channels, 0, shares, room);
        along = column_sum(parts + size, channels, 0, shares, other_room);
    }
    if (writes) {
        const REAL factor = gamma ? s[c] * gamma[c] : s[c];
        gamma_bar[c] = along * s[c];
        beta_bar[c] = total;
        abc[c] = factor;
        abc[channels + c] = -factor * s[c] * s[c] * along / rows;
        abc[2 * channels + c] = -factor * total / rows;
    }
}

// out = a g + b (x - mu) + c
extern "C" __global__ void batch_norm_backward_apply(
    const REAL* g, const REAL* x, const REAL* mu, const REAL* abc, REAL* out,
    Index rows, Index channels, Index share) {
    const Index ch = own_channel(), end = last_row(rows, share);
    if (ch >= channels) return;
    const REAL middle = mu[ch], a = abc[ch], b = abc[channels + ch], c = abc[2 * channels + ch];
    for (Index r = first_row(share); r < end; r += blockDim.y) {
        const Index i = r * channels + ch;
        out[i] = a * g[i] + b * (x[i] - middle) + c;
    }
}

// ------------------------------------------------------------------------------------------- convolution

// How a kernel moves over images: geometry.py in numbers. Of each pair the vertical number comes first.
struct Windows {
    int channels, height, width, kernel_h, kernel_w, places_h, places_w;
    int stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
};

// columns[place, (ky, kx, c)] = the pixel that entry (ky, kx) of the kernel sees at this place; 0 outside.
//
// A place is (image, oy, ox). Thread y of a block takes a place, the threads x share its columns.
// The images may lie in memory in any order: n_step and so on say how far it is from an entry to the next.
extern "C" __global__ void im2col(
    const REAL* images, REAL* columns, Windows w, Index places, Index n_step, Index c_step, Index y_step,
    Index x_step) {
    const Index place = (Index)blockIdx.x * blockDim.y + threadIdx.y;
    if (place >= places) return;
    const int ox = place % w.places_w, oy = place / w.places_w % w.places_h;
    const REAL* image = images + place / w.places_w / w.places_h * n_step;
    const int width = w.kernel_h * w.kernel_w * w.channels;
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
        const int c = j % w.channels, k = j / w.channels;
        const int y = oy * w.stride_h - w.padding_h + k / w.kernel_w * w.dilation_h;
        const int x = ox * w.stride_w - w.padding_w + k % w.kernel_w * w.dilation_w;
        const bool inside = y >= 0 && y < w.height && x >= 0 && x < w.width;
        columns[place * width + j] = inside ? image[y * y_step + x * x_step + c * c_step] : 0;
    }
}

// images[pixel, c] = sum of columns[place, (ky, kx, c)] over where entry (ky, kx) saw this pixel, + bias[c]
//
// Entry ky saw row y from the place oy with  oy stride + ky dilation - padding = y, if there is one. So each
// pixel collects what is its own, in a fixed order; no two threads write to one place. bias may be null.
// Thread y of a block takes a pixel, the threads x share its channels, which lie side by side.
extern "C" __global__ void col2im(
    const REAL* columns, const REAL* bias, REAL* images, Windows w, Index pixels) {
    const Index pixel = (Index)blockIdx.x * blockDim.y + threadIdx.y;
    if (pixel >= pixels) return;
    const int x = pixel % w.width, y = pixel / w.width % w.height;
    const Index image = pixel / w.width / w.height;
    for (int c = threadIdx.x; c < w.channels; c += blockDim.x) {
        REAL total = 0;
        for (int ky = 0; ky < w.kernel_h; ky++) {
            const int down = y + w.padding_h - ky * w.dilation_h, oy = down / w.stride_h;
            if (down < 0 || down % w.stride_h != 0 || oy >= w.places_h) continue;
            for (int kx = 0; kx < w.kernel_w; kx++) {
                const int right = x + w.padding_w - kx * w.dilation_w, ox = right / w.stride_w;
                if (right < 0 || right % w.stride_w != 0 || ox >= w.places_w) continue;
                const Index place = (image * w.places_h + oy) * w.places_w + ox;
                total += columns[((place * w.kernel_h + ky) * w.kernel_w + kx) * w.channels + c];
            }
        }
        images[pixel * w.channels + c] = bias ? total + bias[c] : total;
    }
}

// ------------------------------------------------------------------------- optimisers, moving averages
//
// The parameters of a network are a dozen arrays, some long, some short. One launch takes up to 16 of them:
// each block takes PIECE_BLOCK entries of one. blocks[k] says how many blocks pieces 0 to k have together.

// Which piece is this block's own.
__device__ int own_piece(const Index* blocks) {
    int k = 0;
    while (blockIdx.x >= blocks[k]) k++;
    return k;
}

// The entry of piece k at which this block begins.
__device__ Index piece_begin(const Index* blocks, int k) {
    return (blockIdx.x - (k > 0 ? blocks[k - 1] : 0)) * PIECE_BLOCK;
}

// Parameters p, their gradients, where their new values go, what Adam remembers, and how many steps each has
// made, this one included.
struct Pieces {
    const REAL *p[PIECES], *g[PIECES];
    REAL *made[PIECES], *m[PIECES], *v[PIECES];
    const Index* count[PIECES];
    Index size[PIECES], blocks[PIECES];
};

// With c = sqrt(1 - beta2^t), where t is the count:
//
//     p <- shrink p        g <- g + decay p
//     m <- beta1 m + (1 - beta1) g        v <- beta2 v + (1 - beta2) g^2        in place
//     made = p - (lr c / (1 - beta1^t)) m / (sqrt(v) + eps c)
//
// The two numbers that depend on t are worked out once per block.
extern "C" __global__ void adam(
    Pieces pieces, double lr, double beta1, double beta2, double eps, double decay, double shrink) {
    __shared__ REAL rate, tiny;
    const int k = own_piece(pieces.blocks);
    if (threadIdx.x == 0) {
        const double t = *pieces.count[k], c = sqrt(1 - pow(beta2, t));
        rate = lr * c / (1 - pow(beta1, t));
        tiny = eps * c;
    }
    __syncthreads();
    const Index begin = piece_begin(pieces.blocks, k);
    REAL *m = pieces.m[k], *v = pieces.v[k];
    for (Index i = begin + threadIdx.x; i < begin + PIECE_BLOCK && i < pieces.size[k]; i += blockDim.x) {
        const REAL p = pieces.p[k][i] * (REAL)shrink, g = pieces.g[k][i] + (REAL)decay * p;
        m[i] = m[i] * (REAL)beta1 + (REAL)(1 - beta1) * g;
        v[i] = v[i] * (REAL)beta2 + (REAL)(1 - beta2) * g * g;
        pieces.made[k][i] = p - rate * m[i] / (sqrt(v[i]) + tiny);
    }
}

struct Pairs {
    REAL* kept[PIECES];
    const REAL* now[PIECES];
    Index size[PIECES], blocks[PIECES];
};

// In place: a <- a + share (p - a), with a in `kept` and p in `now`. share is *share_at, if that is not null.
extern "C" __global__ void averages(Pairs pairs, double share, const double* share_at) {
    const int k = own_piece(pairs.blocks);
    const Index begin = piece_begin(pairs.blocks, k);
    const REAL part = share_at ? *share_at : share;
    for (Index i = begin + threadIdx.x; i < begin + PIECE_BLOCK && i < pairs.size[k]; i += blockDim.x)
        pairs.kept[k][i] += part * (pairs.now[k][i] - pairs.kept[k][i]);
}

// ---------------------------------------------------------------------------------------- random numbers

// Philox4x64-10 (Salmon et al. 2011): four numbers of 64 random bits, from a counter and a key of two.
// Each of ten rounds multiplies two of the four, and mixes the two halves of each product (128 bits) with the
// others and the key. The same as numpy.random.Philox(key=[key0, key1], counter=0), which counts before it
// makes its first block: block 0 has the counter 1.
__device__ void philox(Word key0, Word key1, Index block, Word* out) {
    Word c0 = block + 1, c1 = 0, c2 = 0, c3 = 0;
    for (int round = 0; round < 10; round++) {
        const Word low0 = c0 * 0xD2E7470EE14C6C93ULL, high0 = __umul64hi(c0, 0xD2E7470EE14C6C93ULL);
        const Word low2 = c2 * 0xCA5A826395121157ULL, high2 = __umul64hi(c2, 0xCA5A826395121157ULL);
        c0 = high2 ^ c1 ^ key0;
        c1 = low2;
        c2 = high0 ^ c3 ^ key1;
        c3 = low0;
        key0 += 0x9E3779B97F4A7C15ULL;
        key1 += 0xBB67AE8584CAA73BULL;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

// The upper 24 bits of 32. A float holds them exactly.
__device__ float upper(Word word32) { return (float)((unsigned)word32 >> 8); }

// out[i] = the upper 24 bits of the 32-bit word i of the stream, times 2^-24.
// A thread makes one block of the stream: eight words, the lower half of each 64 bits first.
// The second half of the key is *position_at, or position if position_at is null.
extern "C" __global__ void uniform(
    float* out, Word key, Word position, const Index* position_at, Index size) {
    const Index block = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    if (block * 8 >= size) return;
    Word bits[4];
    philox(key, position_at ? (Word)*position_at : position, block, bits);
    for (int j = 0; j < 8 && block * 8 + j < size; j++)
        out[block * 8 + j] = upper(bits[j / 2] >> (j % 2 * 32)) * 5.9604644775390625e-8f;
}

// Box and Muller: u from an even word (above 0), v from the odd word after it,
//
//     sqrt(-2 log u) cos(2 pi v)  and  sqrt(-2 log u) sin(2 pi v)
extern "C" __global__ void normal(
    float* out, Word key, Word position, const Index* position_at, Index size) {
    const Index block = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    if (block * 8 >= size) return;
    Word bits[4];
    philox(key, position_at ? (Word)*position_at : position, block, bits);
    for (int j = 0; j < 4; j++) {
        const float u = (upper(bits[j]) + 1) * 5.9604644775390625e-8f;
        const float v = upper(bits[j] >> 32) * 5.9604644775390625e-8f;
        const float far = sqrtf(-2 * logf(u));
        const Index i = block * 8 + 2 * j;
        if (i < size) out[i] = far * cospif(2 * v);
        if (i + 1 < size) out[i + 1] = far * sinpif(2 * v);
    }
}
