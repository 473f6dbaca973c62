// Fused kernels for the inference form of ConvFormer layers on a CPU (see nn/native/layers.py).
//
// Activations lie as H W C with C padded to whole vectors; the padding is always zero. Every kernel cuts
// the picture into tiles, keeps a ring of rows of what it computes on the way (so that a layer's inner
// activations never leave the cache), and reads and writes each outer activation once.
//
// Register blocking: PIXELS neighbours along a row times NV vectors of output channels are accumulated at
// once. GCC's and Clang's vector extensions lower `vec` to what the machine has.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include <pthread.h>

#if defined(__AVX512F__)
constexpr int LANES = 16, PIXELS = 8;
#elif defined(__AVX__)
constexpr int LANES = 8, PIXELS = 4;
#elif defined(__aarch64__)
constexpr int LANES = 4, PIXELS = 8;
#else
constexpr int LANES = 4, PIXELS = 4;
#endif

typedef float vec __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
typedef int32_t mask __attribute__((vector_size(LANES * sizeof(float))));

#define INLINE static inline __attribute__((always_inline))

namespace {

constexpr int TILE_ROWS = 48, TILE_COLUMNS = 96;

INLINE vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
INLINE void store(float* p, vec v) { *reinterpret_cast<vec*>(p) = v; }
INLINE vec all(float x) { return vec{} + x; }
INLINE vec smaller(vec a, vec b) { return a < b ? a : b; }
INLINE vec larger(vec a, vec b) { return a > b ? a : b; }

// x Φ(x), to 8e-7: Φ(x) = 1/2 + x P(2x²/c² - 1) with P fitted to least maximal error on |x| <= c; Φ is flat beyond.
constexpr float GELU_END = 5.2f;
constexpr float GELU[] = {
    0.135949981f, -0.0677436182f, 0.0500256151f, -0.0399319858f, 0.031973917f, -0.0246988419f,
    0.0180387696f, -0.0126196506f, 0.00836510385f, -0.0045423337f, 0.00200517167f, -0.0014687529f,
    0.0011886892f, -0.000388242886f};

INLINE vec gelu(vec x) {
    const vec near = larger(smaller(x, all(GELU_END)), all(-GELU_END));
    const vec u = near * near * (2 / (GELU_END * GELU_END)) - 1;
    constexpr int degree = sizeof(GELU) / sizeof(float) - 1;
    vec p = all(GELU[degree]);
#pragma GCC unroll 16
    for (int i = degree - 1; i >= 0; --i) p = p * u + GELU[i];
    return x * (near * p + 0.5f);
}

// One dense convolution. weight: blocks × (taps·inputs) × (vectors·LANES); bias: blocks × (vectors·LANES).
struct Dense {
    const float* weight;
    const float* bias;
    int inputs;
    int blocks;
    int vectors;
    int outputs() const { return blocks * vectors * LANES; }
};

// acc[p][v] += Σ_k x[p·stride + k] · w[k][v]
template <int NV>
INLINE void product(const float* x, int stride, int inputs, const float* w, vec (&acc)[PIXELS][NV]) {
    for (int k = 0; k < inputs; ++k, w += NV * LANES) {
        vec b[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) b[v] = load(w + v * LANES);
#pragma GCC unroll 8
        for (int p = 0; p < PIXELS; ++p) {
            const float a = x[p * stride + k];
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) acc[p][v] += b[v] * a;
        }
    }
}

// Runs a dense convolution on PIXELS neighbours; `taps` pointers to the first pixel under each tap.
// finish(p, channel, value) takes the sums, without the bias.
template <int NV, class Finish>
INLINE void dense_blocks(const float* const* taps, int count, int stride, const Dense& d, Finish finish) {
    const size_t block = size_t(count) * d.inputs * NV * LANES;
    for (int b = 0; b < d.blocks; ++b) {
        vec acc[PIXELS][NV] = {};
        const float* w = d.weight + b * block;
        for (int t = 0; t < count; ++t, w += size_t(d.inputs) * NV * LANES)
            product<NV>(taps[t], stride, d.inputs, w, acc);
#pragma GCC unroll 8
        for (int p = 0; p < PIXELS; ++p)
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) finish(p, (b * NV + v) * LANES, acc[p][v]);
    }
}

template <class Finish>
INLINE void dense(const float* const* taps, int count, int stride, const Dense& d, Finish finish) {
    switch (d.vectors) {
        case 3: return dense_blocks<3>(taps, count, stride, d, finish);
        case 2: return dense_blocks<2>(taps, count, stride, d, finish);
        default: return dense_blocks<1>(taps, count, stride, d, finish);
    }
}

// One depthwise K×K convolution of one vector of channels on PIXELS neighbours.
// rows: K pointers to the pixel under the kernel's left column; weight: (K·K) × channels.
template <int K>
INLINE void depthwise(const float* const* rows, int stride, const float* weight, vec (&acc)[PIXELS]) {
    for (int ky = 0; ky < K; ++ky) {
        vec w[K];
#pragma GCC unroll 16
        for (int kx = 0; kx < K; ++kx) w[kx] = load(weight + (ky * K + kx) * stride);
#pragma GCC unroll 32
        for (int j = 0; j < PIXELS + K - 1; ++j) {
            const vec x = load(rows[ky] + j * stride);
#pragma GCC unroll 16
            for (int p = 0; p < PIXELS; ++p)
                if (j - p >= 0 && j - p < K) acc[p] += x * w[j - p];
        }
    }
}

// Reciprocal deviation of one pixel over its `channels` (padding beyond them is zero).
INLINE float reciprocal_deviation(const float* x, int channels, int padded, float eps, float* mean_out = nullptr) {
    vec sum = {};
    for (int c = 0; c < padded; c += LANES) sum += load(x + c);
    float total = 0;
    for (int i = 0; i < LANES; ++i) total += sum[i];
    const float mean = total / channels;
    vec squares = {};
    for (int c = 0; c < padded; c += LANES) {
        const vec d = load(x + c) - mean;
        squares += d * d;
    }
    total = 0;
    for (int i = 0; i < LANES; ++i) total += squares[i];
    total -= (padded - channels) * mean * mean;
    if (mean_out) *mean_out = mean;
    return 1 / std::sqrt(total / channels + eps);
}

struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t(64)); }
};
using Scratch = std::unique_ptr<float[], Free>;

Scratch zeros(size_t count) {
    auto* p = static_cast<float*>(::operator new[](count * sizeof(float), std::align_val_t(64)));
    std::memset(p, 0, count * sizeof(float));
    return Scratch(p);
}

INLINE void breathe() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
}

// Threads that wait for the next kernel awake for a while, as a network is a row of short kernels and to
// wake a sleeping core takes a good part of one. They are never joined: they end with the process.
class Pool {
   public:
    // Runs work(0) here and work(1) ... work(helpers) on other threads; returns when all are done.
    // Fewer helpers do where the system gives no more; whoever comes while it is busy works alone.
    void run(int helpers, const std::function<void(int)>& work) {
        std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
        if (helpers == 0 || !mine.owns_lock()) return work(0);
        grow(helpers);
        work_ = &work;
        helpers_ = helpers;
        pending_ = workers_;
        {
            std::lock_guard<std::mutex> lock(sleeping_);
            turn_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        work(0);
        for (int spins = 0; pending_.load(std::memory_order_acquire) != 0; ++spins) {
            if (spins < SPINS) breathe();
            else std::this_thread::yield();
        }
    }

   private:
    static constexpr int SPINS = 20000;  // a few tenths of a millisecond

    void grow(int helpers) {
        try {
            for (; workers_ < helpers; ++workers_)
                std::thread(&Pool::serve, this, workers_ + 1, turn_.load()).detach();
        } catch (const std::system_error&) {
            // The threads that could be started share the work.
        }
    }

    void serve(int index, uint64_t seen) {
        for (;;) {
            for (int spins = 0; turn_.load(std::memory_order_acquire) == seen && spins < SPINS; ++spins) breathe();
            if (turn_.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> lock(sleeping_);
                wake_.wait(lock, [&] { return turn_.load(std::memory_order_acquire) != seen; });
            }
            ++seen;
            if (index <= helpers_) (*work_)(index);
            pending_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::mutex busy_, sleeping_;
    std::condition_variable wake_;
    std::atomic<uint64_t> turn_{0};
    std::atomic<int> pending_{0};
    const std::function<void(int)>* work_ = nullptr;
    int helpers_ = 0;
    int workers_ = 0;
};

Pool* the_pool = nullptr;
std::once_flag first_use;

Pool& pool() {
    std::call_once(first_use, [] {
        the_pool = new Pool;
        // A forked child has none of its parent's threads and needs a pool of its own.
        pthread_atfork(nullptr, nullptr, [] { the_pool = new Pool; });
    });
    return *the_pool;
}

struct Span {
    int top, bottom, left, right;
};

// Which rows of a picture a call makes, and where they lie: src and dst hold only some of the rows, beginning
// with src_top and dst_top. What a kernel reads beyond the rows that it makes must be in src, unless it lies
// outside the picture.
struct Rows {
    int height, width;    // of the whole picture
    int top, bottom;      // to be made
    int src_top, dst_top;
    int src_rows, dst_rows;  // held; matters only where planes lie one after the other
    const float* from(const float* src, int y, int x, int stride) const {
        return src + (size_t(y - src_top) * width + x) * stride;
    }
    float* to(float* dst, int y, int x, int stride) const {
        return dst + (size_t(y - dst_top) * width + x) * stride;
    }
};

// Runs body(tile, scratch) over all tiles of those rows. Returns 0, or 1 where memory does not suffice.
template <class Body>
int over_tiles(const Rows& rows, int threads, size_t scratch_floats, Body body) {
    const int height = rows.bottom - rows.top, width = rows.width;
    const int down = (height + TILE_ROWS - 1) / TILE_ROWS, across = (width + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const int tasks = down * across;
    threads = std::max(1, std::min(threads, tasks));
    std::vector<Scratch> scratch;
    try {
        for (int i = 0; i < threads; ++i) scratch.push_back(zeros(scratch_floats));
    } catch (const std::bad_alloc&) {
        return 1;
    }
    std::atomic<int> next{0};
    pool().run(threads - 1, [&](int thread) {
        for (int t; (t = next++) < tasks;) {
            const int row = t / across, column = t % across;
            body(Span{rows.top + int(int64_t(height) * row / down), rows.top + int(int64_t(height) * (row + 1) / down),
                      int(int64_t(width) * column / across), int(int64_t(width) * (column + 1) / across)},
                 scratch[thread].get());
        }
    });
    return 0;
}

// The mixer's spatial part with the kernel size known.
template <int K>
int mixer(const float* src, float* dst, const Rows& rows, int channels, float eps, const Dense& query,
          const float* spread, const float* spread_bias, const Dense& value, const Dense& project, int threads) {
    constexpr int R = K / 2, RING = TILE_COLUMNS + 2 * R + 2 * PIXELS;
    const int C = project.outputs();
    const size_t line = size_t(RING) * C;
    return over_tiles(rows, threads, K * line + K * RING + PIXELS * C, [&](Span tile, float* scratch) {
        float* deviations = scratch + K * line;     // K × RING
        float* gated = deviations + K * RING;       // PIXELS × C
        const int left = std::max(0, tile.left - R), right = std::min(rows.width, tile.right + R);
        for (int y = tile.top - R; y < tile.bottom + R; ++y) {
            const int slot = (y + K) % K;  // y >= -R > -K
            float* ring = scratch + slot * line;
            if (y < 0 || y >= rows.height) {
                std::memset(ring, 0, line * sizeof(float));
            } else {
                float* r = deviations + slot * RING;
                const int origin = tile.left - R;  // the picture's column under the ring's first
                if (left > origin) std::memset(ring, 0, size_t(left - origin) * C * sizeof(float));
                for (int x = left; x < right; x += PIXELS) {
                    const float* in = rows.from(src, y, x, C);
                    float* out = ring + size_t(x - origin) * C;
                    float here[PIXELS];
                    for (int p = 0; p < PIXELS; ++p)
                        here[p] = r[x - origin + p] = reciprocal_deviation(in + p * C, channels, C, eps);
                    dense(&in, 1, C, query, [&](int p, int c, vec sum) __attribute__((always_inline)) {
                        store(out + p * C + c, gelu(sum * here[p] + load(query.bias + c)));
                    });
                }
                const int end = tile.right + R + PIXELS;
                if (right < end) std::memset(ring + size_t(right - origin) * C, 0, size_t(end - right) * C * sizeof(float));
            }
            const int yo = y - R;
            if (yo < tile.top) continue;
            const float* r = deviations + (yo + K) % K * RING + R;
            for (int x = tile.left; x < tile.right; x += PIXELS) {
                const float* lines[K];
                for (int i = 0; i < K; ++i) lines[i] = scratch + (yo - R + i + K) % K * line + size_t(x - tile.left) * C;
                for (int c = 0; c < C; c += LANES) {
                    const float* under[K];
                    for (int i = 0; i < K; ++i) under[i] = lines[i] + c;
                    vec acc[PIXELS];
#pragma GCC unroll 8
                    for (int p = 0; p < PIXELS; ++p) acc[p] = load(spread_bias + c);
                    depthwise<K>(under, C, spread + c, acc);
#pragma GCC unroll 8
                    for (int p = 0; p < PIXELS; ++p) store(gated + p * C + c, acc[p]);
                }
                const float* in = rows.from(src, yo, x, C);
                const float* here = r + (x - tile.left);
                dense(&in, 1, C, value, [&](int p, int c, vec sum) __attribute__((always_inline)) {
                    float* at = gated + p * C + c;
                    store(at, load(at) * (sum * here[p] + load(value.bias + c)));
                });
                float* out = rows.to(dst, yo, x, C);
                const int valid = std::min(PIXELS, tile.right - x);
                const float* from = gated;
                dense(&from, 1, C, project, [&](int p, int c, vec sum) __attribute__((always_inline)) {
                    if (p < valid) store(out + p * C + c, sum + load(project.bias + c) + load(in + p * C + c));
                });
            }
        }
    });
}

}  // namespace

extern "C" {

int relume_lanes() { return LANES; }

// How many pixels beyond the last one a source must allow to be read.
int relume_slack() { return PIXELS; }

// dst = src + project(spread(gelu(query(norm(src)))) * value(norm(src))), everything foldable folded.
int relume_mixer(const float* src, float* dst, const Rows* rows, int channels, float eps, const Dense* query,
                 const float* spread, const float* spread_bias, int kernel, const Dense* value, const Dense* project,
                 int threads) {
    switch (kernel) {
#define SIZE(K) \
    case K:     \
        return mixer<K>(src, dst, *rows, channels, eps, *query, spread, spread_bias, *value, *project, threads);
        SIZE(3) SIZE(5) SIZE(7) SIZE(9) SIZE(11)
#undef SIZE
        default: return 2;
    }
}

// dst = src + contract(h + gelu(local(h))), h = gelu(expand(norm(src))).
int relume_feed_forward(const float* src, float* dst, const Rows* rows, int channels, float eps,
                        const Dense* expand, const float* local, const float* local_bias, const Dense* contract,
                        int threads) {
    constexpr int RING = TILE_COLUMNS + 2 + 2 * PIXELS;
    const int C = contract->outputs(), N = expand->outputs();
    const size_t line = size_t(RING) * N;
    return over_tiles(*rows, threads, 3 * line + PIXELS * N, [&](Span tile, float* scratch) {
        float* mixed = scratch + 3 * line;  // PIXELS × N
        const int left = std::max(0, tile.left - 1), right = std::min(rows->width, tile.right + 1);
        const int origin = tile.left - 1;
        for (int y = tile.top - 1; y < tile.bottom + 1; ++y) {
            float* ring = scratch + (y + 3) % 3 * line;
            if (y < 0 || y >= rows->height) {
                std::memset(ring, 0, line * sizeof(float));
            } else {
                if (left > origin) std::memset(ring, 0, size_t(left - origin) * N * sizeof(float));
                for (int x = left; x < right; x += PIXELS) {
                    const float* in = rows->from(src, y, x, C);
                    float* out = ring + size_t(x - origin) * N;
                    float here[PIXELS];
                    for (int p = 0; p < PIXELS; ++p) here[p] = reciprocal_deviation(in + p * C, channels, C, eps);
                    dense(&in, 1, C, *expand, [&](int p, int c, vec sum) __attribute__((always_inline)) {
                        store(out + p * N + c, gelu(sum * here[p] + load(expand->bias + c)));
                    });
                }
                const int end = tile.right + 1 + PIXELS;
                if (right < end) std::memset(ring + size_t(right - origin) * N, 0, size_t(end - right) * N * sizeof(float));
            }
            const int yo = y - 1;
            if (yo < tile.top) continue;
            for (int x = tile.left; x < tile.right; x += PIXELS) {
                const float* lines[3];
                for (int i = 0; i < 3; ++i) lines[i] = scratch + (yo - 1 + i + 3) % 3 * line + size_t(x - tile.left) * N;
                for (int c = 0; c < N; c += LANES) {
                    const float* under[3] = {lines[0] + c, lines[1] + c, lines[2] + c};
                    vec acc[PIXELS];
#pragma GCC unroll 8
                    for (int p = 0; p < PIXELS; ++p) acc[p] = load(local_bias + c);
                    depthwise<3>(under, N, local + c, acc);
#pragma GCC unroll 8
                    for (int p = 0; p < PIXELS; ++p)
                        store(mixed + p * N + c, load(under[1] + (p + 1) * N) + gelu(acc[p]));
                }
                const float* in = rows->from(src, yo, x, C);
                float* out = rows->to(dst, yo, x, C);
                const int valid = std::min(PIXELS, tile.right - x);
                const float* from = mixed;
                dense(&from, 1, N, *contract, [&](int p, int c, vec sum) __attribute__((always_inline)) {
                    if (p < valid)
                        store(out + p * C + c, sum + load(contract->bias + c) + load(in + p * C + c));
                });
            }
        }
    });
}

// dst = layer(src), a 1×1 convolution.
int relume_pointwise(const float* src, float* dst, const Rows* rows, int stride, const Dense* layer, int threads) {
    const int N = layer->outputs();
    return over_tiles(*rows, threads, 1, [&](Span tile, float*) {
        for (int y = tile.top; y < tile.bottom; ++y)
            for (int x = tile.left; x < tile.right; x += PIXELS) {
                const float* in = rows->from(src, y, x, stride);
                float* out = rows->to(dst, y, x, N);
                const int valid = std::min(PIXELS, tile.right - x);
                dense(&in, 1, stride, *layer, [&](int p, int c, vec sum) __attribute__((always_inline)) {
                    if (p < valid) store(out + p * N + c, sum + load(layer->bias + c));
                });
            }
    });
}

// A 3×3 convolution with zero padding.
//
// planes: whether src is C H W (a picture); then (src - mean[c]) * range is what is padded and convolved.
// gain, shift: affine of a layer norm done before the convolution, or null.
// skip: added to the result (H W N, beginning with the row skip_top), or null.
// scale: 0 to store H W N; else the result's channels are the sub-pixels of a picture N/scale² sH sW.
int relume_spatial(const float* src, float* dst, const Rows* rows, int channels, int stride, int planes,
                   const float* mean, float range, const float* gain, const float* shift, float eps,
                   const Dense* layer, const float* skip, int skip_top, int scale, int pictures, int threads) {
    constexpr int RING = TILE_COLUMNS + 2 + 2 * PIXELS;
    const int N = layer->outputs();
    const size_t line = size_t(RING) * stride;
    return over_tiles(*rows, threads, 3 * line + PIXELS * N, [&](Span tile, float* scratch) {
        float* sums = scratch + 3 * line;
        const int left = std::max(0, tile.left - 1), right = std::min(rows->width, tile.right + 1);
        const int origin = tile.left - 1;
        for (int y = tile.top - 1; y < tile.bottom + 1; ++y) {
            float* ring = scratch + (y + 3) % 3 * line;
            std::memset(ring, 0, line * sizeof(float));
            if (y >= 0 && y < rows->height) {
                for (int x = left; x < right; ++x) {
                    float* out = ring + size_t(x - origin) * stride;
                    if (planes) {
                        for (int c = 0; c < channels; ++c)
                            out[c] = (src[(size_t(c) * rows->src_rows + y - rows->src_top) * rows->width + x] - mean[c]) * range;
                        continue;
                    }
                    const float* in = rows->from(src, y, x, stride);
                    if (!gain) {
                        std::memcpy(out, in, stride * sizeof(float));
                        continue;
                    }
                    float middle;
                    const float r = reciprocal_deviation(in, channels, stride, eps, &middle);
                    for (int c = 0; c < stride; c += LANES)
                        store(out + c, (load(in + c) - middle) * r * load(gain + c) + load(shift + c));
                }
            }
            const int yo = y - 1;
            if (yo < tile.top) continue;
            for (int x = tile.left; x < tile.right; x += PIXELS) {
                const float* taps[9];
                for (int t = 0; t < 9; ++t)
                    taps[t] = scratch + (yo - 1 + t / 3 + 3) % 3 * line + size_t(x - tile.left + t % 3) * stride;
                const float* beside = skip ? skip + (size_t(yo - skip_top) * rows->width + x) * N : nullptr;
                const int valid = std::min(PIXELS, tile.right - x);
                if (!scale) {
                    dense(taps, 9, stride, *layer, [&](int p, int c, vec sum) __attribute__((always_inline)) {
                        if (p >= valid) return;
                        sum += load(layer->bias + c);
                        if (beside) sum += load(beside + p * N + c);
                        store(rows->to(dst, yo, x + p, N) + c, sum);
                    });
                    continue;
                }
                dense(taps, 9, stride, *layer, [&](int p, int c, vec sum) __attribute__((always_inline)) {
                    store(sums + p * N + c, sum + load(layer->bias + c));
                });
                const size_t wide = size_t(rows->width) * scale;
                for (int c = 0; c < pictures; ++c)
                    for (int i = 0; i < scale; ++i) {
                        float* row = dst + ((size_t(c) * rows->dst_rows + yo - rows->dst_top) * scale + i) * wide + size_t(x) * scale;
                        for (int p = 0; p < valid; ++p)
                            for (int j = 0; j < scale; ++j)
                                row[p * scale + j] = sums[p * N + (c * scale + i) * scale + j];
                    }
            }
        }
    });
}

}  // extern "C"
