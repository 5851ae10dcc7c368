// Products and sums of one or more tree levels in one launch: a block takes a tile of rows through a subtree, children
// before parents, and only the subtree's root is written to global memory.
//
// A sum over channels is y = m + log(W · exp(x - m)). For each node:
//   1. stage: the maximum m of the inputs of each row, then exp(x - m) into the operand in shared memory. At the lowest
//      level x is summed over the children, from activations or from data through the leaves; above it is what the children
//      have added to an accumulator in shared memory. The product is never written to global memory.
//   2. product: tensor cores multiply the weights, which come from global memory as ready fragments, 16 bytes a lane, with
//      the operand. No barrier inside.
//   3. epilogue: the logarithm, added to the parent's accumulator or written out; m goes to the offset of the row.
//
// Where weights are shared by patches and rows are few, the patches are folded into the long side of the product: the columns
// of a tile are then the rows of several nodes, side by side. Elsewhere a column is a row.
//
// Shapes: NB columns a block, WARPS_N warps side by side along the rows, the others along the outputs; each warp has MT tiles
// of 16 outputs and NT tiles of 8 rows.
#include "source.cuh"

namespace {

constexpr uint32_t WARPS = CONVPC_THREADS / 32;

// Inputs that a thread takes at a time: what each child costs (its address, its value, the loop) is shared by so many.
constexpr uint32_t CHUNK = 4;

// How weights and operand are held for a precision.
template <int PRECISION>
struct Operand {
    static constexpr bool PAIRS = PRECISION == CONVPC_PRECISION_BF16;
    static constexpr uint32_t INPUTS = PAIRS ? 2 : 1;  // of an operand row
    static constexpr uint32_t PARTS = PRECISION == CONVPC_PRECISION_F32 ? 2 : 1;

    __device__ static __forceinline__ uint32_t steps(uint32_t inputs) {
        return (inputs + INPUTS * CONVPC_STEP_ROWS - 1) / (INPUTS * CONVPC_STEP_ROWS);
    }
};

// What children have added up for a node, in shared memory.
struct Accumulated {
    const float *x;
    const float *offsets;
    uint32_t ld, row;

    uint32_t channels;

    template <int N>
    __device__ __forceinline__ void add(uint32_t c, uint32_t stride, float (&to)[N]) const {
#pragma unroll
        for (uint32_t k = 0; k < N; ++k)
            if (c + k * stride < channels) to[k] += x[(c + k * stride) * ld + row];
    }
    __device__ __forceinline__ float offset() const { return offsets[row]; }
};

template <int PRECISION, int MT, int NT, int WARPS_N, bool FOLD>
struct Block {
    using O = Operand<PRECISION>;
    static constexpr uint32_t NB = 8 * NT * WARPS_N, LD = NB + CONVPC_OPERAND_PADDING, PARTS = CONVPC_THREADS / NB;
    static constexpr uint32_t WARPS_M = WARPS / WARPS_N;
    static_assert(NB <= CONVPC_THREADS && CONVPC_THREADS % NB == 0 && WARPS % WARPS_N == 0, "threads split evenly");
    // Lanes read (t, g) of the operand at bank 8t + g or 24t + g: all 32 differ.
    static_assert(LD % 32 == 8 || LD % 32 == 24, "bank conflicts");

    const ConvpcFused &p;
    uint32_t *operand;   // [operand rows][LD]
    float *accumulators;  // [level's outputs][LD] for each level but the last
    float *offsets;      // [levels][NB]
    float *maxima;       // [NB]
    float *partial;      // [PARTS][NB]
    uint32_t *untrusted;  // [WARPS][MT * NT * 4]
    const ConvpcNode *nodes;  // one, or as many as are folded
    uint32_t row0, repetition;

    __device__ Block(const ConvpcFused &p, float *shared, const ConvpcNode *nodes, uint32_t row0, uint32_t repetition)
        : p(p), nodes(nodes), row0(row0), repetition(repetition) {
        operand = reinterpret_cast<uint32_t *>(shared);
        accumulators = shared + p.operand;
        offsets = accumulators + p.accumulators;
        maxima = offsets + p.level_count * NB;
        partial = maxima + NB;
        untrusted = reinterpret_cast<uint32_t *>(partial + CONVPC_THREADS) + threadIdx.x / 32 * (MT * NT * 4);
    }

    // The node, output feature and row of a column.
    __device__ __forceinline__ const ConvpcNode &node(uint32_t column) const {
        return nodes[FOLD ? column / (NB / p.fold) : 0];
    }
    __device__ __forceinline__ uint32_t row(uint32_t column) const {
        return row0 + (FOLD ? column % (NB / p.fold) : column);
    }
    __device__ __forceinline__ bool is_there(uint32_t column) const {
        return !FOLD || node(column).feature != CONVPC_NO_FEATURE;
    }

    // Calls f with the inputs of a step for one column.
    template <class F>
    __device__ __forceinline__ void inputs(const ConvpcStep &step, const ConvpcLevel &level, uint32_t column, F f) const {
        if (FOLD) {
            const ConvpcStep &own = p.steps[node(column).first];
            with_inputs(p.source, own.first, own.count, repetition, row(column), f);
        } else if (step.level > 0) {
            f(Accumulated{accumulators + level.from, offsets + (step.level - 1) * NB, LD, column, level.inputs});
        } else {
            with_inputs(p.source, step.first, step.count, repetition, row(column), f);
        }
    }

    // The maximum of each row, and the exponentials of what is left. Returns with the operand whole.
    __device__ __forceinline__ void stage(const ConvpcStep &step, const ConvpcLevel &level, bool last) {
        const uint32_t column = threadIdx.x % NB, part = threadIdx.x / NB;
        const uint32_t filled = O::steps(level.inputs) * CONVPC_STEP_ROWS * O::INPUTS;
        float m = negative_infinity(), offset = 0.0f;
        // Two passes through one piece of code: the inputs of five kinds of source are its larger part.
#pragma unroll 1
        for (uint32_t pass = 0; pass < 2; ++pass) {
            inputs(step, level, column, [&](const auto &x) {
                if (pass == 0 && part == 0) offset = x.offset();
#pragma unroll 1
                for (uint32_t c0 = part; c0 < filled; c0 += CHUNK * PARTS) {
                    float v[CHUNK] = {};
                    x.add(c0, PARTS, v);
#pragma unroll
                    for (uint32_t k = 0; k < CHUNK; ++k) {
                        const uint32_t c = c0 + k * PARTS;
                        // Beyond the inputs the operand is 0, like the weights.
                        if (c >= level.inputs) v[k] = negative_infinity();
                        if (pass == 0) m = fmaxf(m, v[k]);
                        else if (c < filled) store(c, column, exponential(v[k] - m));
                    }
                }
            });
            if (pass == 0) {
                partial[part * NB + column] = m;
                __syncthreads();
#pragma unroll
                for (uint32_t i = 0; i < PARTS; ++i) m = fmaxf(m, partial[i * NB + column]);
                // Where every input is -inf there is nothing to subtract.
                m = m == negative_infinity() ? 0.0f : m;
            }
        }
        if (part == 0 && is_there(column)) {
            maxima[column] = m;
            // The node's own sum first, as where another launch adds it up: the same bits whatever is fused.
            const float own = offset + m;
            float &to = offsets[step.level * NB + column];
            if (!last) to = step.fresh ? own : to + own;
            else leave(p.output, offset_index(p.output, p.source.rows, repetition, node(column).feature, row(column)), own, m);
        }
        __syncthreads();
    }

    // Input c of a column to its place in the operand.
    __device__ __forceinline__ void store(uint32_t c, uint32_t column, float e) const {
        if (PRECISION == CONVPC_PRECISION_BF16)
            reinterpret_cast<uint16_t *>(operand)[(c / 2 * LD + column) * 2 + c % 2] = ptx::to_bf16(e);
        else
            operand[c * LD + column] = PRECISION == CONVPC_PRECISION_TF32 ? ptx::to_tf32(e) : __float_as_uint(e);
    }

    // Output and column of element r of fragment (i, j) in this warp's piece.
    __device__ __forceinline__ static uint32_t output_of(uint32_t tile, uint32_t r) {
        return tile * CONVPC_TILE_OUTPUTS + threadIdx.x % 32 / 4 + r / 2 * 8;
    }
    __device__ __forceinline__ static uint32_t column_of(uint32_t j, uint32_t r) {
        return threadIdx.x / 32 % WARPS_N * (8 * NT) + j * 8 + threadIdx.x % 4 * 2 + r % 2;
    }

    // d += W · operand for the outputs of MT tiles.
    __device__ __forceinline__ void multiply(const ConvpcLevel &level, uint32_t matrix, uint32_t tile0, uint32_t tiles,
                                             float (&d)[MT][NT][4]) const {
        const uint32_t steps = O::steps(level.inputs), lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const uint4 *from =
            reinterpret_cast<const uint4 *>(level.packed) + (uint64_t)(matrix * tiles + tile0) * steps * O::PARTS * 32 + lane;
        const uint32_t *b0 = operand + t * LD + threadIdx.x / 32 % WARPS_N * (8 * NT) + g;
        for (uint32_t k = 0; k < steps; ++k) {
            uint32_t a[MT][O::PARTS][4];
#pragma unroll
            for (uint32_t i = 0; i < MT; ++i)
#pragma unroll
                for (uint32_t part = 0; part < O::PARTS; ++part) {
                    const uint4 v = tile0 + i < tiles ? from[((uint64_t)i * steps + k) * O::PARTS * 32 + part * 32]
                                                      : make_uint4(0, 0, 0, 0);
                    a[i][part][0] = v.x, a[i][part][1] = v.y, a[i][part][2] = v.z, a[i][part][3] = v.w;
                }
#pragma unroll
            for (uint32_t j = 0; j < NT; ++j) {
                const uint32_t *b = b0 + k * CONVPC_STEP_ROWS * LD + j * 8;
                const uint32_t raw[2] = {b[0], b[4 * LD]};
                if (PRECISION == CONVPC_PRECISION_F32) {
                    // The small products first, so that they are not lost beside the large one.
                    uint32_t high[2], low[2];
#pragma unroll
                    for (uint32_t r = 0; r < 2; ++r) {
                        high[r] = ptx::to_tf32(__uint_as_float(raw[r]));
                        low[r] = ptx::to_tf32(__uint_as_float(raw[r]) - __uint_as_float(high[r]));
                    }
#pragma unroll
                    for (uint32_t i = 0; i < MT; ++i) {
                        ptx::mma_tf32(d[i][j], a[i][O::PARTS - 1], high);
                        ptx::mma_tf32(d[i][j], a[i][0], low);
                        ptx::mma_tf32(d[i][j], a[i][0], high);
                    }
                } else {
#pragma unroll
                    for (uint32_t i = 0; i < MT; ++i)
                        if (O::PAIRS) ptx::mma_bf16(d[i][j], a[i][0], raw);
                        else ptx::mma_tf32(d[i][j], a[i][0], raw);
                }
            }
        }
    }

    // Where output `output` of a column goes: out of the launch, or to the parent's accumulator. Not one pointer for both,
    // whose every access would have to find out which memory it is in.
    __device__ __forceinline__ float *outside(uint32_t output, uint32_t column) const {
        return p.output.values +
               value_index(p.output, p.source.rows, repetition, node(column).feature, output, row(column));
    }
    __device__ __forceinline__ float *accumulator(const ConvpcLevel &level, uint32_t output, uint32_t column) const {
        return accumulators + level.to + output * LD + column;
    }

    // Two neighbouring columns of an output; folded, they may be of different nodes.
    __device__ __forceinline__ void put(const ConvpcStep &step, const ConvpcLevel &level, bool last, uint32_t output,
                                        uint32_t column, float2 y) const {
        if (FOLD) {
            if (is_there(column)) *outside(output, column) = y.x;
            if (is_there(column + 1)) *outside(output, column + 1) = y.y;
        } else if (last) {
            *reinterpret_cast<float2 *>(outside(output, column)) = y;
        } else {
            float2 *to = reinterpret_cast<float2 *>(accumulator(level, output, column));
            const float2 old = step.fresh ? make_float2(0.0f, 0.0f) : *to;
            *to = make_float2(old.x + y.x, old.y + y.y);
        }
    }

    // Logarithms of the products to their destination. What cannot be trusted is marked, then computed anew by a loop that
    // is not unrolled: it is rare, and its code must not push the rest out of the instruction cache.
    __device__ __forceinline__ void finish(const ConvpcStep &step, const ConvpcLevel &level, bool last, uint32_t matrix,
                                           uint32_t tile0, const float (&d)[MT][NT][4]) const {
        bool some = false;
#pragma unroll
        for (uint32_t i = 0; i < MT; ++i)
#pragma unroll
            for (uint32_t j = 0; j < NT; ++j)
#pragma unroll
                for (uint32_t half = 0; half < 2; ++half) {
                    const uint32_t output = output_of(tile0 + i, 2 * half);
                    if (output >= level.outputs) continue;
                    const float s0 = d[i][j][2 * half], s1 = d[i][j][2 * half + 1];
                    some |= s0 < SMALLEST_SUM || s1 < SMALLEST_SUM;
                    const float2 y = make_float2(s0 < SMALLEST_SUM ? 0.0f : logarithm(s0), s1 < SMALLEST_SUM ? 0.0f : logarithm(s1));
                    put(step, level, last, output, column_of(j, 0), y);
                }
        if (!__any_sync(0xffffffffu, some)) return;
#pragma unroll
        for (uint32_t at = 0; at < MT * NT * 4; ++at) {
            const uint32_t word = __ballot_sync(0xffffffffu, d[at / (NT * 4)][at / 4 % NT][at % 4] < SMALLEST_SUM);
            if (threadIdx.x % 32 == 0) untrusted[at] = word;
        }
        __syncwarp();
#pragma unroll 1
        for (uint32_t at = 0; at < MT * NT * 4; ++at) {
            const uint32_t output = output_of(tile0 + at / (NT * 4), at % 4), column = column_of(at / 4 % NT, at % 4);
            if (untrusted[at] >> (threadIdx.x % 32) & 1 && output < level.outputs && is_there(column)) {
                const float *w = level.linear + ((uint64_t)matrix * level.outputs + output) * level.inputs;
                inputs(step, level, column, [&](const auto &x) {
                    const float y = log_sum(x, w, level.inputs) - maxima[column];
                    if (FOLD || last) *outside(output, column) = y;
                    else *accumulator(level, output, column) += y;
                });
            }
        }
        __syncwarp();
    }

    __device__ __forceinline__ void run() {
        const ConvpcNode root = nodes[0];
        for (uint32_t s = 0; s < root.count; ++s) {
            const ConvpcStep step = p.steps[root.first + s];
            const ConvpcLevel level = p.levels[step.level];
            const bool last = s + 1 == root.count;
            const uint32_t matrix = step.group * p.source.repetitions + repetition;
            const uint32_t tiles = (level.outputs + CONVPC_TILE_OUTPUTS - 1) / CONVPC_TILE_OUTPUTS;
            if (s > 0) __syncthreads();  // the children's outputs are there, and the operand is no longer read
            stage(step, level, last);
            for (uint32_t tile0 = threadIdx.x / 32 / WARPS_N * MT; tile0 < tiles; tile0 += WARPS_M * MT) {
                float d[MT][NT][4] = {};
                multiply(level, matrix, tile0, tiles, d);
                finish(step, level, last, matrix, tile0, d);
            }
        }
    }
};

template <int PRECISION, int MT, int NT, int WARPS_N, bool FOLD = false>
__device__ __forceinline__ void lse_fused(const ConvpcFused &p) {
    extern __shared__ __align__(16) float shared[];
    using B = Block<PRECISION, MT, NT, WARPS_N, FOLD>;
    // Row tiles innermost, so that blocks that run together read the same weights from the second-level cache.
    const uint32_t at = blockIdx.x / p.row_tiles;
    const uint32_t rows = FOLD ? B::NB / p.fold : B::NB;
    B(p, shared, p.nodes + at % p.node_count * p.fold, blockIdx.x % p.row_tiles * rows, at / p.node_count).run();
}

}  // namespace

// wide: many outputs and many rows, the fewest bytes a product. base: the usual. thin: few outputs. slim: few rows. fold: few
// rows, shared weights.
#define LSE_FUSED(name, precision)                                                                                          \
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 2) lse_fused_##name##_wide(const ConvpcFused p) {              \
        lse_fused<precision, 4, 8, 2>(p);                                                                                   \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 4) lse_fused_##name##_base(const ConvpcFused p) {              \
        lse_fused<precision, 2, 4, 2>(p);                                                                                   \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 6) lse_fused_##name##_thin(const ConvpcFused p) {              \
        lse_fused<precision, 1, 2, 4>(p);                                                                                   \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 6) lse_fused_##name##_slim(const ConvpcFused p) {              \
        lse_fused<precision, 1, 2, 1>(p);                                                                                   \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 6) lse_fused_##name##_fold(const ConvpcFused p) {           \
        lse_fused<precision, 1, 2, 1, true>(p);                                                                             \
    }

LSE_FUSED(f32, CONVPC_PRECISION_F32)
LSE_FUSED(tf32, CONVPC_PRECISION_TF32)
LSE_FUSED(bf16, CONVPC_PRECISION_BF16)
