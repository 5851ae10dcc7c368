// The way down: the flow into a sum's inputs from the flow out of it.
//
// With e = exp(x - m), sum = W e and y = log sum as the way up left them, flow_in = e · (Wᵀ (flow / sum)), columns being rows of
// the batch. For each node:
//   1. stage: flow / sum = flow exp(-y) into the operand in shared memory;
//   2. product: tensor cores multiply the transposed weights with it; see product.cuh;
//   3. epilogue: what a round of tiles makes goes through shared memory to the threads of its columns, which compute x and its
//      exponential anew from what the way up read.
// Sums too small to be trusted are left out of the product and added in logarithms.
#include "down.cuh"
#include "product.cuh"

namespace {

// Inputs that a thread takes at a time; see lse_fused.cu.
constexpr uint32_t CHUNK = 4;

template <int PRECISION, int MT, int NT, int WARPS_N>
struct Block {
    using P = Product<PRECISION, MT, NT, WARPS_N>;
    static constexpr uint32_t NB = P::NB, PARTS = CONVPC_THREADS / NB;
    // Inputs of the sums that the warps multiply for at a time.
    static constexpr uint32_t ROUND = P::WARPS_M * MT * CONVPC_TILE_OUTPUTS;
    static_assert(ROUND % PARTS == 0, "a thread finds the same channels again");

    const ConvpcDown &p;
    float *products;    // [ROUND][LD]
    uint32_t *operand;  // [operand rows][LD]
    ConvpcNode node;
    uint32_t row0;

    // The quotients of the outputs from d0 on for which the operand has room; whether some were left out.
    __device__ __forceinline__ bool stage(uint32_t d0) const {
        const uint32_t column = threadIdx.x % NB, part = threadIdx.x / NB;
        const uint32_t last = min(d0 + p.at_a_time, p.sums.channels), filled = P::filled(last - d0);
        const Sums sums(p, node.feature, node.repetition, row0 + column);
        const bool some =
            sums.quotients(d0 + part, PARTS, last, [&](uint32_t d, float q) { P::store(operand, d - d0, column, q); });
        // The first beyond the outputs that is this thread's.
        for (uint32_t d = last - d0 + (part + PARTS - (last - d0) % PARTS) % PARTS; d < filled; d += PARTS)
            P::store(operand, d, column, 0.0f);
        return __syncthreads_or(some);
    }

    // The products of a round of tiles, to where the threads of their columns find them.
    __device__ __forceinline__ void put(const float (&d)[MT][NT][4]) const {
#pragma unroll
        for (uint32_t i = 0; i < MT; ++i)
#pragma unroll
            for (uint32_t j = 0; j < NT; ++j)
#pragma unroll
                for (uint32_t half = 0; half < 2; ++half)
                    *reinterpret_cast<float2 *>(products + P::output_of(P::first_tile() + i, 2 * half) * P::LD +
                                                P::column_of(j, 0)) = make_float2(d[i][j][2 * half], d[i][j][2 * half + 1]);
    }

    // The flow into a round's channels, from `first` on.
    __device__ __forceinline__ void finish(uint32_t first) const {
        const uint32_t column = threadIdx.x % NB, row = row0 + column, last = min(first + ROUND, p.source.channels);
        const uint64_t at = offset_index(p.sums, p.source.rows, node.repetition, node.feature, row);
        const float m = p.sums.maxima[at];
        with_inputs(p.source, node.first, node.count, node.repetition, row, [&](const auto &x) {
            const uint32_t part = threadIdx.x / NB;
            const float *product = products + part * P::LD + column;
            float *to = p.below + below_index(p, node.feature, node.repetition, first + part, row);
#pragma unroll 1
            for (uint32_t c0 = first + part; c0 < last; c0 += CHUNK * PARTS) {
                float v[CHUNK] = {};
                add_relative(x, m, p.sums.offsets + at, c0, PARTS, v);
#pragma unroll
                for (uint32_t k = 0; k < CHUNK; ++k, product += PARTS * P::LD, to += (uint64_t)PARTS * p.source.rows)
                    if (c0 + k * PARTS < last) *to = *product * exponential(v[k]);
            }
        });
    }

    // What was left out of the product; each thread for the channels that it has written.
    __device__ __forceinline__ void add_untrusted() const {
        const uint32_t row = row0 + threadIdx.x % NB;
        const Sums sums(p, node.feature, node.repetition, row);
        const uint64_t at = offset_index(p.sums, p.source.rows, node.repetition, node.feature, row);
        const float m = p.sums.maxima[at];
        with_inputs(p.source, node.first, node.count, node.repetition, row, [&](const auto &x) {
#pragma unroll 1
            for (uint32_t d = 0; d < p.sums.channels; ++d) {
                if (!sums.is_untrusted(d)) continue;
                const float *w = p.linear + ((uint64_t)matrix() * p.sums.channels + d) * p.source.channels;
#pragma unroll 1
                for (uint32_t c = threadIdx.x / NB; c < p.source.channels; c += PARTS)
                    p.below[below_index(p, node.feature, node.repetition, c, row)] +=
                        sums.share(d, w[c], relative_input(x, m, p.sums.offsets + at, c));
            }
        });
    }

    __device__ __forceinline__ uint32_t matrix() const { return node.group * p.source.repetitions + node.repetition; }

    __device__ __forceinline__ void run() const {
        const uint32_t outputs = p.sums.channels, steps = P::steps(outputs);
        const uint32_t tiles = (p.source.channels + CONVPC_TILE_OUTPUTS - 1) / CONVPC_TILE_OUTPUTS;
        bool some = false;
        for (uint32_t first = 0; first < tiles; first += P::WARPS_M * MT) {
            const uint32_t tile0 = first + P::first_tile();
            float d[MT][NT][4] = {};
            for (uint32_t d0 = 0; d0 < outputs; d0 += p.at_a_time) {
                const uint32_t step = P::steps(d0);
                // Where all fits, the rounds after the first find it there.
                if (first == 0 || outputs > p.at_a_time) {
                    if (first + d0 > 0) __syncthreads();  // what is there is no longer read
                    some |= stage(d0);
                }
                if (tile0 < tiles)
                    P::multiply(p.transposed, operand, steps, step, min(P::steps(p.at_a_time), steps - step), matrix(), tile0,
                                tiles, d);
            }
            if (first > 0) __syncthreads();  // the products of the round before are read
            put(d);
            __syncthreads();
            finish(first * CONVPC_TILE_OUTPUTS);
        }
        if (some) add_untrusted();
    }
};

template <int PRECISION, int MT, int NT, int WARPS_N>
__device__ __forceinline__ void flow(const ConvpcDown &p) {
    extern __shared__ __align__(16) float shared[];
    using B = Block<PRECISION, MT, NT, WARPS_N>;
    uint32_t *operand = reinterpret_cast<uint32_t *>(shared + B::ROUND * B::P::LD);
    // Row tiles innermost, so that blocks that run together read the same weights from the second-level cache.
    B{p, shared, operand, p.nodes[blockIdx.x / p.row_tiles], blockIdx.x % p.row_tiles * B::NB}.run();
}

}  // namespace

#define FLOW(name, precision)                                                                                               \
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 2) flow_##name##_wide(const ConvpcDown p) {                    \
        flow<precision, 4, 8, 2>(p);                                                                                        \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 4) flow_##name##_base(const ConvpcDown p) {                    \
        flow<precision, 2, 4, 2>(p);                                                                                        \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 5) flow_##name##_thin(const ConvpcDown p) {                    \
        flow<precision, 1, 2, 4>(p);                                                                                        \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 5) flow_##name##_slim(const ConvpcDown p) {                    \
        flow<precision, 1, 2, 1>(p);                                                                                        \
    }

FLOW(f32, CONVPC_PRECISION_F32)
FLOW(tf32, CONVPC_PRECISION_TF32)
FLOW(bf16, CONVPC_PRECISION_BF16)

// The root's flow: 1 for each row, 0 for rows of probability zero and those that fill up the last tile.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) root_flow(const ConvpcRootFlow p) {
    const uint32_t row = blockIdx.x * CONVPC_THREADS + threadIdx.x;
    if (row >= p.rows) return;
    p.flow[row] = row < p.given && p.values[row] + p.offsets[row] > negative_infinity() ? 1.0f : 0.0f;
}

// The same where a row's class is known: all that flows goes to its head, and what is impossible is judged by the class too.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) label_flow(const ConvpcLabelFlow p) {
    const uint32_t row = blockIdx.x * CONVPC_THREADS + threadIdx.x;
    if (row >= p.rows) return;
    float joint = negative_infinity(), used = 0.0f;
    uint32_t label = p.classes;
    if (row < p.given) {
        label = p.labels[row];
        joint = log_weight(p.prior[label]) + p.values[(uint64_t)label * p.stride + row];
        used = joint + p.offsets[row] > negative_infinity() ? 1.0f : 0.0f;
    }
    p.joint[row] = joint;
    p.joint_offsets[row] = p.offsets[row];
#pragma unroll 1
    for (uint32_t c = 0; c < p.classes; ++c) p.flow[(uint64_t)c * p.stride + row] = c == label ? used : 0.0f;
}

// Through a mixture of repetitions, a thread a row: flow_in[c,r] = flow[c] p[c,r]^b / sum_r p[c,r]^b, in logarithms, where
// p[c,r] = w[c,r] exp(x[c,r] - y[c]) is the posterior and b the inverse temperature.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) unmix(const ConvpcDown p) {
    const ConvpcNode node = p.nodes[blockIdx.x / p.row_tiles];
    const uint32_t row = blockIdx.x % p.row_tiles * CONVPC_THREADS + threadIdx.x;
    const uint32_t repetitions = p.source.repetitions, channels = p.source.channels;
    if (row >= p.rows) return;
    const Sums sums(p, node.feature, 0, row);
    const double base = p.sums.offsets[offset_index(p.sums, p.source.rows, 0, node.feature, row)];
    const float power = *p.inverse_temperature;
#pragma unroll 1
    for (uint32_t r = 0; r < repetitions; ++r)
        with_inputs(p.source, node.first, node.count, r, row, [&](const auto &x) {
#pragma unroll 1
            for (uint32_t c = 0; c < channels; ++c) {
                const float w = p.linear[((uint64_t)node.group * channels + c) * repetitions + r];
                p.below[below_index(p, node.feature, r, c, row)] = sums.share(c, w, (float)(x.in_double(c) - base), power);
            }
        });
    if (power == 1.0f) return;
#pragma unroll 1
    for (uint32_t c = 0; c < channels; ++c) {
        const float flow = sums.flow[c * sums.stride];
        if (!(flow > 0.0f)) continue;
        float total = 0.0f;
#pragma unroll 1
        for (uint32_t r = 0; r < repetitions; ++r) total += p.below[below_index(p, node.feature, r, c, row)];
#pragma unroll 1
        for (uint32_t r = 0; r < repetitions; ++r) p.below[below_index(p, node.feature, r, c, row)] *= flow / total;
    }
}
