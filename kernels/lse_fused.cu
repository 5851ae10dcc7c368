// Products and sums of one or more tree levels in one launch: a block takes a tile of rows through a subtree, children
// before parents, and only the subtree's root is written to global memory.
//
// A sum over channels is y = m + log(W · exp(x - m)). For each node:
//   1. stage: the maximum m of the inputs of each row, then exp(x - m) into the operand in shared memory. At the lowest
//      level x is summed over the children, from activations or from data through the leaves; above it is what the children
//      have added to an accumulator in shared memory. The product is never written to global memory.
//   2. product: tensor cores multiply the weights with the operand; see product.cuh.
//   3. epilogue: the logarithm, added to the parent's accumulator or written out; m goes to the offset of the row.
//
// Where weights are shared by patches and rows are few, the patches are folded into the long side of the product: the columns
// of a tile are then the rows of several nodes, side by side. Elsewhere a column is a row.
//
// Shapes: NB columns a block, WARPS_N warps side by side along the rows, the others along the outputs; each warp has MT tiles
// of 16 outputs and NT tiles of 8 rows.
#include "product.cuh"
#include "source.cuh"

namespace {

// Inputs that a thread takes at a time: what each child costs (its address, its value, the loop) is shared by so many.
constexpr uint32_t CHUNK = 4;

// What children have added up for a node, in shared memory.
struct Accumulated {
    const float *x;
    const double *offsets;
    uint32_t ld, row;

    uint32_t channels;

    static constexpr bool EXACT = false;

    template <int N>
    __device__ __forceinline__ void add(uint32_t c, uint32_t stride, float (&to)[N]) const {
#pragma unroll
        for (uint32_t k = 0; k < N; ++k)
            if (c + k * stride < channels) to[k] += x[(c + k * stride) * ld + row];
    }
    __device__ __forceinline__ double offset() const { return offsets[row]; }
};

template <int PRECISION, int MT, int NT, int WARPS_N, bool FOLD>
struct Block {
    using P = Product<PRECISION, MT, NT, WARPS_N>;
    static constexpr uint32_t NB = P::NB, LD = P::LD, PARTS = CONVPC_THREADS / NB;

    const ConvpcFused &p;
    uint32_t *operand;   // [operand rows][LD]
    float *accumulators;  // [level's outputs][LD] for each level but the last
    double *offsets;     // [levels but the last][NB]
    float *maxima;       // [NB]
    float *partial;      // [PARTS][NB], read before the product
    uint32_t *untrusted;  // [WARPS][MT * NT * 4], written after it, in the same place
    const ConvpcNode *nodes;  // one, or as many of one repetition as are folded
    uint32_t row0, repetition;

    __device__ Block(const ConvpcFused &p, float *shared, const ConvpcNode *nodes, uint32_t row0)
        : p(p), nodes(nodes), row0(row0), repetition(nodes->repetition) {
        operand = reinterpret_cast<uint32_t *>(shared);
        accumulators = shared + p.operand;
        offsets = reinterpret_cast<double *>(accumulators + p.accumulators);
        maxima = reinterpret_cast<float *>(offsets + (p.level_count - 1) * NB);
        partial = maxima + NB;
        untrusted = reinterpret_cast<uint32_t *>(partial) + threadIdx.x / 32 * (MT * NT * 4);
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

    // The leaves of a step for one column.
    __device__ __forceinline__ LocationScale leaves(const ConvpcStep &step, uint32_t column) const {
        const ConvpcStep &own = FOLD ? p.steps[node(column).first] : step;
        return LocationScale{{{p.source, p.source.list + own.first, own.count, repetition, row(column)}}};
    }

    // Of the channels from `chunk` on that this thread took together, the one whose value is the largest.
    __device__ __forceinline__ uint32_t most_probable(const LocationScale &x, const ConvpcLevel &level, uint32_t column,
                                                      uint32_t chunk, float largest) const {
        float v[CHUNK] = {};
        if (P::PAIRS) x.add(chunk, PARTS, v);
        uint32_t best = chunk;
#pragma unroll
        for (uint32_t k = 0; k < CHUNK; ++k) {
            const uint32_t c = chunk + k * PARTS;
            if (c >= level.inputs) break;
            if ((P::PAIRS ? v[k] : __uint_as_float(operand[c * LD + column])) == largest) best = c;
        }
        return best;
    }

    // The inputs of rows that are far from all leaves, from float64: they are relative to `own`, which one thread of a column has and
    // all get. The largest becomes a part of `own`, and is returned; for other rows `m` is. All threads take part.
    __device__ __forceinline__ float stage_far(const LocationScale &x, uint32_t filled, uint32_t column, bool leads, bool far,
                                               float m, double &own) const {
        const uint32_t part = threadIdx.x / NB;
        if (PARTS > 1) {
            uint32_t *halves = reinterpret_cast<uint32_t *>(partial);
            if (leads) halves[column] = __double2loint(own), halves[NB + column] = __double2hiint(own);
            __syncthreads();
            own = __hiloint2double(halves[NB + column], halves[column]);
            __syncthreads();
        }
        float most = negative_infinity();
        if (far) {
#pragma unroll 1
            for (uint32_t c = part; c < filled; c += PARTS) {
                const float v = c < x.s.channels ? (float)(x.in_double(c) - own) : negative_infinity();
                if (!P::PAIRS) operand[c * LD + column] = __float_as_uint(v);
                most = fmaxf(most, v);
            }
        }
        partial[part * NB + column] = most;
        __syncthreads();
#pragma unroll
        for (uint32_t i = 0; i < PARTS; ++i) most = fmaxf(most, partial[i * NB + column]);
        if (!far) return m;
        own += most;
        // Pairs are computed anew, relative to what `own` is now.
        return P::PAIRS ? 0.0f : most;
    }

    // Where pairs of a far row are computed a second time: the inputs that a thread takes together, relative to `own`.
    template <class X>
    __device__ __forceinline__ static bool add_far(const X &x, bool far, double own, uint32_t c, float (&v)[CHUNK]) {
        if constexpr (X::EXACT && P::PAIRS) {
            if (far) {
                double exact[CHUNK] = {};
                x.add_in_double(c, PARTS, exact);
#pragma unroll
                for (uint32_t k = 0; k < CHUNK; ++k) v[k] = (float)(exact[k] - own);
            }
            return far;
        }
        return false;
    }

    // The maximum of each row, and the exponentials of what is left. Returns with the operand whole.
    __device__ __forceinline__ void stage(const ConvpcStep &step, const ConvpcLevel &level, bool last) {
        const uint32_t column = threadIdx.x % NB, part = threadIdx.x / NB;
        const uint32_t filled = P::filled(level.inputs);
        const bool exact = (FOLD || step.level == 0) && p.source.kind == CONVPC_SOURCE_LOCATION_SCALE;
        float m = negative_infinity(), largest = 0.0f;
        double offset = 0.0, own = 0.0;
        // The first of the channels that this thread took together and its largest is among.
        uint32_t chunk = part;
        // Whether this thread has the column's largest: of several the first.
        bool leads = part == 0, far = false;
        // Pairs of bf16 have no room for the inputs themselves, which are computed a second time then: two passes through one
        // piece of code, of which the inputs of five kinds of source are the larger part.
#pragma unroll 1
        for (uint32_t pass = 0; pass < (P::PAIRS ? 2 : 1); ++pass) {
            inputs(step, level, column, [&](const auto &x) {
                if (!x.EXACT && pass == 0 && part == 0) offset = x.offset();
#pragma unroll 1
                for (uint32_t c0 = part; c0 < filled; c0 += CHUNK * PARTS) {
                    float v[CHUNK] = {};
                    if (!add_far(x, far && pass == 1, own, c0, v)) x.add(c0, PARTS, v);
                    const float before = m;
#pragma unroll
                    for (uint32_t k = 0; k < CHUNK; ++k) {
                        const uint32_t c = c0 + k * PARTS;
                        // Beyond the inputs the operand is 0, like the weights.
                        if (c >= level.inputs) v[k] = negative_infinity();
                        if (pass == 0) m = fmaxf(m, v[k]);
                        if (c >= filled) continue;
                        if (!P::PAIRS) operand[c * LD + column] = __float_as_uint(v[k]);
                        else if (pass == 1) P::store(operand, c, column, exponential(v[k] - m));
                    }
                    if (x.EXACT && m > before) chunk = c0;
                }
            });
            if (pass == 0) {
                partial[part * NB + column] = m;
                __syncthreads();
                const float mine = m;
#pragma unroll
                for (uint32_t i = 0; i < PARTS; ++i) m = fmaxf(m, partial[i * NB + column]);
                if (exact) {
                    leads = mine == m;
#pragma unroll
                    for (uint32_t i = 0; i < PARTS; ++i) leads &= i >= part || partial[i * NB + column] < m;
                }
                // Where every input is -inf there is nothing to subtract.
                m = m == negative_infinity() ? 0.0f : m;
                largest = m;
                if (exact) {
                    const LocationScale x = leaves(step, column);
                    far = x.is_far(m);
                    if (leads) own = x.in_double(most_probable(x, level, column, chunk, m));
                    if (__syncthreads_or(far)) m = stage_far(x, filled, column, leads, far, m, own);
                } else {
                    own = offset + m;
                }
            }
        }
        if (!P::PAIRS) {
#pragma unroll 4
            for (uint32_t c = part; c < filled; c += PARTS)
                P::store(operand, c, column, exponential(__uint_as_float(operand[c * LD + column]) - m));
        }
        if (leads && is_there(column)) {
            maxima[column] = largest;
            // The node's own sum first, as where another launch adds it up: the same bits whatever is fused.
            double *to = offsets + step.level * NB + column;
            if (!last) *to = step.fresh ? own : *to + own;
            else leave(p.output, offset_index(p.output, p.source.rows, repetition, node(column).feature, row(column)), own, largest);
        }
        __syncthreads();
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
                    const uint32_t output = P::output_of(tile0 + i, 2 * half);
                    if (output >= level.outputs) continue;
                    const float s0 = d[i][j][2 * half], s1 = d[i][j][2 * half + 1];
                    some |= s0 < SMALLEST_SUM || s1 < SMALLEST_SUM;
                    const float2 y = make_float2(s0 < SMALLEST_SUM ? 0.0f : logarithm(s0), s1 < SMALLEST_SUM ? 0.0f : logarithm(s1));
                    put(step, level, last, output, P::column_of(j, 0), y);
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
            const uint32_t output = P::output_of(tile0 + at / (NT * 4), at % 4), column = P::column_of(at / 4 % NT, at % 4);
            if (untrusted[at] >> (threadIdx.x % 32) & 1 && output < level.outputs && is_there(column)) {
                const float *w = level.linear + ((uint64_t)matrix * level.outputs + output) * level.inputs;
                inputs(step, level, column, [&](const auto &x) {
                    const double total = total_of_far(x, maxima[column], level.inputs);
                    const float y = log_sum(x, w, level.inputs, maxima[column], &total);
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
            const uint32_t steps = P::steps(level.inputs);
            if (s > 0) __syncthreads();  // the children's outputs are there, and the operand is no longer read
            stage(step, level, last);
            for (uint32_t tile0 = P::first_tile(); tile0 < tiles; tile0 += P::WARPS_M * MT) {
                float d[MT][NT][4] = {};
                P::multiply(level.packed, operand, steps, 0, steps, matrix, tile0, tiles, d);
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
    const uint32_t rows = FOLD ? B::NB / p.fold : B::NB;
    B(p, shared, p.nodes + blockIdx.x / p.row_tiles * p.fold, blockIdx.x % p.row_tiles * rows).run();
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
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 5) lse_fused_##name##_thin(const ConvpcFused p) {              \
        lse_fused<precision, 1, 2, 4>(p);                                                                                   \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 5) lse_fused_##name##_slim(const ConvpcFused p) {              \
        lse_fused<precision, 1, 2, 1>(p);                                                                                   \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 5) lse_fused_##name##_fold(const ConvpcFused p) {           \
        lse_fused<precision, 1, 2, 1, true>(p);                                                                             \
    }

LSE_FUSED(f32, CONVPC_PRECISION_F32)
LSE_FUSED(tf32, CONVPC_PRECISION_TF32)
LSE_FUSED(bf16, CONVPC_PRECISION_BF16)
