// Expected counts of the sums' edges: a product that contracts over the rows of the batch.
//
// With q = flow / sum and e = exp(x - m) the counts are W ⊙ (q eᵀ), summed over rows and over all nodes that share the weights.
// A block takes 64 × 64 weights of a matrix (fewer at the edge) and a part of its items, an item being a tile of rows of a
// node. For each item:
//   1. stage: quotients and exponentials of the tile into shared memory;
//   2. product: tensor cores add to registers; what they truncate is bounded by adding each item to a second set.
// Parts are added in a fixed order, into float64, by add_parts. However many rows and nodes share the weights, f32 adds no more
// than the 64 rows of an item and then the 64 items of a part (MOST_ITEMS of convpc-cuda's plan/down.rs): 128 · 2^-24 = 8e-6 of
// a count at the very worst, some 1e-6 else.
#include "down.cuh"
#include "product.cuh"

namespace {

// Inputs that a thread takes at a time; see lse_fused.cu.
constexpr uint32_t CHUNK = 4;

// Outputs and inputs of a block's weights.
constexpr uint32_t TILE = CONVPC_COUNTS_TILE;

// Fragments of a warp, which has a quarter of the weights: tiles of 16 outputs and of 8 inputs.
constexpr uint32_t MT = TILE / 2 / 16, NT = TILE / 2 / 8;

// NB rows of the batch in shared memory, [output or input][row].
template <int PRECISION, int NB>
struct Block {
    static constexpr bool PAIRS = PRECISION == CONVPC_PRECISION_BF16;
    // Words of a row. Lanes (g, t) read words at g LD + 2t, two at a time, or, of pairs, g LD + t: all banks differ.
    static constexpr uint32_t LD = PAIRS ? NB / 2 + 4 : NB + 8, STEP = PAIRS ? 16 : 8, PARTS = CONVPC_THREADS / NB;
    static_assert(PAIRS ? LD % 8 == 4 : LD % 32 == 8 || LD % 32 == 24, "bank conflicts");

    const ConvpcCounts &p;
    uint32_t *q;  // [TILE][LD]
    uint32_t *e;  // [TILE][LD]
    uint32_t d0, c0;

    __device__ __forceinline__ void store(uint32_t *to, uint32_t at, uint32_t column, float v) const {
        if (PAIRS) reinterpret_cast<uint16_t *>(to)[at * LD * 2 + column] = ptx::to_bf16(v);
        else to[at * LD + column] = PRECISION == CONVPC_PRECISION_TF32 ? ptx::to_tf32(v) : __float_as_uint(v);
    }

    // Quotients and exponentials of an item; whether sums that cannot be trusted were left out.
    __device__ __forceinline__ bool stage(const ConvpcNode &node, uint32_t row0) const {
        const ConvpcDown &way = p.down;
        const uint32_t column = threadIdx.x % NB, part = threadIdx.x / NB, row = row0 + column;
        const Sums sums(way, node.feature, node.repetition, row);
        const uint32_t last = min(d0 + TILE, way.sums.channels);
        const bool some =
            sums.quotients(d0 + part, PARTS, last, [&](uint32_t d, float v) { store(q, d - d0, column, v); });
        for (uint32_t d = last - d0 + (part + PARTS - (last - d0) % PARTS) % PARTS; d < TILE; d += PARTS)
            store(q, d, column, 0.0f);
        const uint64_t at = offset_index(way.sums, way.source.rows, node.repetition, node.feature, row);
        const float m = way.sums.maxima[at];
        with_inputs(way.source, node.first, node.count, node.repetition, row, [&](const auto &x) {
#pragma unroll 1
            for (uint32_t c = part; c < TILE; c += CHUNK * PARTS) {
                float v[CHUNK] = {};
                add_relative(x, m, way.sums.offsets + at, c0 + c, PARTS, v);
#pragma unroll
                for (uint32_t k = 0; k < CHUNK; ++k)
                    if (c + k * PARTS < TILE)
                        store(e, c + k * PARTS, column,
                              c0 + c + k * PARTS < way.source.channels ? exponential(v[k]) : 0.0f);
            }
        });
        return __syncthreads_or(some);
    }

    // Where a lane finds its rows of output or input `first + g`, g = lane / 4.
    __device__ __forceinline__ static const uint32_t *rows_of(const uint32_t *from, uint32_t first) {
        return from + (first + threadIdx.x % 32 / 4) * LD + threadIdx.x % 4 * (PAIRS ? 1 : 2);
    }

    // Rows (a pair for bf16) of a fragment's registers.
    __device__ __forceinline__ static void load(const uint32_t *from, uint32_t (&to)[2]) {
        if (PAIRS) {
            to[0] = from[0], to[1] = from[4];
        } else {
            // The order of the rows in a product does not matter: two neighbours take the places of t and t + 4.
            const uint2 two = *reinterpret_cast<const uint2 *>(from);
            to[0] = two.x, to[1] = two.y;
        }
    }

    // The first output and input of this warp's quarter.
    __device__ __forceinline__ static uint32_t warp_output() { return threadIdx.x / 32 / 2 * (TILE / 2); }
    __device__ __forceinline__ static uint32_t warp_input() { return threadIdx.x / 32 % 2 * (TILE / 2); }

    // A fragment as the product takes it: of f32 the high parts and the low ones.
    template <int N>
    struct Fragment {
        uint32_t high[N], low[N];

        __device__ __forceinline__ void set(uint32_t r, uint32_t word) {
            if (PRECISION == CONVPC_PRECISION_F32) {
                const Split split(__uint_as_float(word));
                high[r] = split.high, low[r] = split.low;
            } else {
                high[r] = word;
            }
        }
    };

    // total += q eᵀ
    __device__ __forceinline__ void multiply(float (&total)[MT][NT][4]) const {
        const uint32_t *outputs = rows_of(q, warp_output()), *inputs = rows_of(e, warp_input());
        float d[MT][NT][4] = {};
#pragma unroll 1
        for (uint32_t k = 0; k < NB / STEP; ++k, outputs += 8, inputs += 8) {
            Fragment<4> a[MT];
#pragma unroll
            for (uint32_t i = 0; i < MT; ++i) {
                uint32_t upper[2], lower[2];
                load(outputs + i * 16 * LD, upper);
                load(outputs + (i * 16 + 8) * LD, lower);
                a[i].set(0, upper[0]), a[i].set(1, lower[0]), a[i].set(2, upper[1]), a[i].set(3, lower[1]);
            }
#pragma unroll
            for (uint32_t j = 0; j < NT; ++j) {
                uint32_t words[2];
                load(inputs + j * 8 * LD, words);
                Fragment<2> b;
                b.set(0, words[0]), b.set(1, words[1]);
#pragma unroll
                for (uint32_t i = 0; i < MT; ++i) multiply(d[i][j], a[i], b);
            }
        }
#pragma unroll
        for (uint32_t i = 0; i < MT; ++i)
#pragma unroll
            for (uint32_t j = 0; j < NT; ++j)
#pragma unroll
                for (uint32_t r = 0; r < 4; ++r) total[i][j][r] += d[i][j][r];
    }

    __device__ __forceinline__ static void multiply(float (&d)[4], const Fragment<4> &a, const Fragment<2> &b) {
        if (PAIRS) {
            ptx::mma_bf16(d, a.high, b.high);
        } else {
            if (PRECISION == CONVPC_PRECISION_F32) {
                // The small products first, so that they are not lost beside the large one.
                ptx::mma_tf32(d, a.low, b.high);
                ptx::mma_tf32(d, a.high, b.low);
            }
            ptx::mma_tf32(d, a.high, b.high);
        }
    }

    // Calls f with node and first row of each item of a part.
    template <class F>
    __device__ __forceinline__ void items(uint32_t matrix, uint32_t part, F f) const {
        const uint32_t first = p.begins[matrix], count = (p.begins[matrix + 1] - first) * p.down.row_tiles;
        // In 64 bits: the products of two 32-bit numbers.
        const uint32_t begin = (uint64_t)count * part / p.parts, end = (uint64_t)count * (part + 1) / p.parts;
#pragma unroll 1
        for (uint32_t i = begin; i < end; ++i)
            f(p.down.nodes[first + i / p.down.row_tiles], i % p.down.row_tiles * NB);
    }

    __device__ __forceinline__ float *partial(uint32_t matrix, uint32_t part, uint32_t d) const {
        const uint32_t outputs = p.down.sums.channels, inputs = p.down.source.channels;
        return p.partial + (((uint64_t)part * p.matrices + matrix) * outputs + d) * inputs;
    }
    __device__ __forceinline__ const float *weights(uint32_t matrix, uint32_t d) const {
        return p.down.linear + ((uint64_t)matrix * p.down.sums.channels + d) * p.down.source.channels;
    }

    // What was left out: a warp has every fourth output, a lane every 32nd input, so that nothing meets.
    __device__ __forceinline__ void add_untrusted(uint32_t matrix, uint32_t part) const {
        const ConvpcDown &way = p.down;
        const uint32_t lane = threadIdx.x % 32, last = min(d0 + TILE, way.sums.channels);
        __syncthreads();
        items(matrix, part, [&](const ConvpcNode &node, uint32_t row0) {
#pragma unroll 1
            for (uint32_t at = 0; at < NB; at += 32) {
#pragma unroll 1
                for (uint32_t d = d0 + threadIdx.x / 32; d < last; d += WARPS) {
                    const bool mine = at + lane < NB && Sums(way, node.feature, node.repetition, row0 + at + lane).is_untrusted(d);
                    uint32_t marks = __ballot_sync(0xffffffffu, mine);
                    if (marks == 0) continue;
                    // Of at most 32 rows, so that no long sum is left to f32.
                    float sum[TILE / 32] = {};
#pragma unroll 1
                    for (; marks; marks &= marks - 1) {
                        const uint32_t row = row0 + at + __ffs(marks) - 1;
                        const Sums sums(way, node.feature, node.repetition, row);
                        const uint64_t at = offset_index(way.sums, way.source.rows, node.repetition, node.feature, row);
                        const float m = way.sums.maxima[at];
                        with_inputs(way.source, node.first, node.count, node.repetition, row, [&](const auto &x) {
                            float v[TILE / 32] = {};
                            add_relative(x, m, way.sums.offsets + at, c0 + lane, 32, v);
#pragma unroll
                            for (uint32_t k = 0; k < TILE / 32; ++k)
                                if (c0 + lane + 32 * k < way.source.channels)
                                    sum[k] += sums.share(d, weights(matrix, d)[c0 + lane + 32 * k], v[k]);
                        });
                    }
#pragma unroll
                    for (uint32_t k = 0; k < TILE / 32; ++k)
                        if (c0 + lane + 32 * k < way.source.channels) partial(matrix, part, d)[c0 + lane + 32 * k] += sum[k];
                }
            }
        });
    }

    __device__ __forceinline__ void run(uint32_t matrix, uint32_t part) const {
        const uint32_t outputs = p.down.sums.channels, inputs = p.down.source.channels;
        float total[MT][NT][4] = {};
        bool some = false;
        items(matrix, part, [&](const ConvpcNode &node, uint32_t row0) {
            some |= stage(node, row0);
            // Quarters beyond the weights have nothing to multiply.
            if (d0 + warp_output() < outputs && c0 + warp_input() < inputs) multiply(total);
            __syncthreads();  // the next item overwrites what is read
        });
#pragma unroll
        for (uint32_t i = 0; i < MT; ++i)
#pragma unroll
            for (uint32_t j = 0; j < NT; ++j)
#pragma unroll
                for (uint32_t r = 0; r < 4; ++r) {
                    const uint32_t lane = threadIdx.x % 32;
                    const uint32_t d = d0 + warp_output() + i * 16 + lane / 4 + r / 2 * 8;
                    const uint32_t c = c0 + warp_input() + j * 8 + lane % 4 * 2 + r % 2;
                    if (d < outputs && c < inputs) partial(matrix, part, d)[c] = fmaxf(weights(matrix, d)[c], 0.0f) * total[i][j][r];
                }
        if (some) add_untrusted(matrix, part);
    }
};

template <int PRECISION, int NB>
__device__ __forceinline__ void counts(const ConvpcCounts &p) {
    using B = Block<PRECISION, NB>;
    __shared__ __align__(16) uint32_t shared[2][TILE * B::LD];
    const uint32_t output_tiles = (p.down.sums.channels + TILE - 1) / TILE;
    const uint32_t input_tiles = (p.down.source.channels + TILE - 1) / TILE;
    // Tiles of a part innermost: blocks that run together read the same rows.
    uint32_t at = blockIdx.x;
    const uint32_t c0 = at % input_tiles * TILE;
    at /= input_tiles;
    const uint32_t d0 = at % output_tiles * TILE;
    at /= output_tiles;
    B{p, shared[0], shared[1], d0, c0}.run(at / p.parts, at % p.parts);
}

}  // namespace

#define COUNTS(name, precision)                                                                                             \
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 4) counts_##name##_base(const ConvpcCounts p) {                \
        counts<precision, CONVPC_COUNTS_ROWS_BASE>(p);                                                                      \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 4) counts_##name##_slim(const ConvpcCounts p) {                \
        counts<precision, CONVPC_COUNTS_ROWS_SLIM>(p);                                                                      \
    }

COUNTS(f32, CONVPC_PRECISION_F32)
COUNTS(tf32, CONVPC_PRECISION_TF32)
COUNTS(bf16, CONVPC_PRECISION_BF16)

// total += the parts, in order; a thread a weight.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) add_parts(const ConvpcAddParts p) {
    const uint64_t at = (uint64_t)blockIdx.x * CONVPC_THREADS + threadIdx.x;
    if (at >= p.count) return;
    double sum = p.total[at];
#pragma unroll 1
    for (uint32_t part = 0; part < p.parts; ++part) sum += p.partial[part * p.count + at];
    p.total[at] = sum;
}

// Counts of the edges of a mixture of repetitions, of which each has an input of its own: the flow into it, added over the
// rows. A warp an edge; its lanes are added as a tree.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) add_rows(const ConvpcAddRows p) {
    const uint64_t edge = (uint64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (edge >= (uint64_t)p.features * p.channels * p.repetitions) return;
    // [feature][channel][repetition] of the total, [repetition][feature][channel] of the flows.
    const uint32_t r = edge % p.repetitions, lane = threadIdx.x % 32;
    const uint64_t input = (uint64_t)r * p.features * p.channels + edge / p.repetitions;
    double sum = 0.0;
    for (uint32_t row = lane; row < p.rows; row += 32) sum += p.flow[input * p.stride + row];
#pragma unroll
    for (uint32_t by = 16; by > 0; by /= 2) sum += __shfl_down_sync(0xffffffffu, sum, by);
    if (lane == 0) p.total[edge] += sum;
}
