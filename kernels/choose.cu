// The way down: from the root to the leaves each row takes one edge of every sum that it comes to, drawn in proportion to its
// posterior probability or the most probable, and at the leaves its missing values are drawn or set to their modes.
//
// A thread takes one row through one node or leaf, neighbouring threads neighbouring rows. All is float64 and added in the
// order of convpc-core's rng, without fused multiply-adds, so that a row takes the edges that it takes on every backend.
#include "random.cuh"
#include "source.cuh"

namespace {

__device__ __forceinline__ double smallest() { return __longlong_as_double(0xfff0000000000000ll); }

// Index drawn with probabilities proportional to `weight(k)`, by inversion with the uniform u. Never one of weight zero,
// unless all are.
template <class W>
__device__ __forceinline__ uint32_t pick(uint32_t n, double u, W weight) {
    double total = 0.0;
#pragma unroll 1
    for (uint32_t k = 0; k < n; ++k) total = __dadd_rn(total, weight(k));
    const double target = __dmul_rn(u, total);
    double below = 0.0;
    uint32_t last = 0;
#pragma unroll 1
    for (uint32_t k = 0; k < n; ++k) {
        const double w = weight(k);
        if (!(w > 0.0)) continue;
        below = __dadd_rn(below, w);
        last = k;
        if (target < below) break;
    }
    return last;
}

// Index of the first largest value.
template <class V>
__device__ __forceinline__ uint32_t arg_max(uint32_t n, V value) {
    double best = smallest();
    uint32_t at = 0;
#pragma unroll 1
    for (uint32_t k = 0; k < n; ++k) {
        const double v = value(k);
        if (v > best) best = v, at = k;
    }
    return at;
}

// An edge in proportion to weight times likelihood. Relative to the largest input that counts nothing overflows, and something
// stays above zero.
struct Sampled {
    const ConvpcRandom &random;

    template <class E>
    __device__ __forceinline__ uint32_t operator()(const ConvpcBranch &node, uint32_t row, const float *w, uint32_t n, E edge) const {
        double most = smallest();
#pragma unroll 1
        for (uint32_t k = 0; k < n; ++k)
            if (w[k] != 0.0f) most = fmax(most, edge(k));
        const double u = uniforms(random, row, node.number, CONVPC_USE_EDGE).first;
        return pick(n, u, [&](uint32_t k) {
            double weight = w[k], base = most;
            if (!(w[k] > 0.0f)) {
                if (!is_tiny(w[k])) return 0.0;
                weight = 1.0, base -= tiny_log(w[k]);
            }
            return __dmul_rn(weight, exp(edge(k) - base));
        });
    }
};

// The edge of the largest term.
struct Largest {
    template <class E>
    __device__ __forceinline__ uint32_t operator()(const ConvpcBranch &, uint32_t, const float *w, uint32_t n, E edge) const {
        return arg_max(n, [&](uint32_t k) { return __dadd_rn(exact_log_weight(w[k]), edge(k)); });
    }
};

// Where a row comes from: the output that it takes of a node.
struct Output {
    uint32_t channel, repetition;

    __device__ __forceinline__ Output(const uint32_t *choices, uint32_t from, uint32_t stride, uint32_t row, uint32_t channels) {
        const uint32_t chosen = from == CONVPC_NO_PLACE ? 0 : choices[(uint64_t)from * stride + row];
        channel = chosen % channels, repetition = chosen / channels;
    }
};

// The repetition whose tables a row goes by.
__device__ __forceinline__ uint32_t table(const ConvpcMixture &m, const uint32_t *choices, uint32_t stride, uint32_t row) {
    return m.place == CONVPC_NO_PLACE ? 0 : choices[(uint64_t)m.place * stride + row] / m.channels;
}

// `edge(node, output, row, w)` is the edge that a row takes, of the output with the weights w.
template <class F>
__device__ __forceinline__ void choose(const ConvpcChoose &p, F edge) {
    const uint32_t row = blockIdx.x % p.row_tiles * CONVPC_THREADS + threadIdx.x;
    if (row >= p.rows) return;
    const ConvpcBranch node = p.nodes[table(p.mixture, p.choices, p.stride, row) * p.node_count + blockIdx.x / p.row_tiles];
    const Output o(p.choices, node.from, p.stride, row, p.outputs);
    const float *w = p.linear + ((uint64_t)(node.group * p.repetitions + o.repetition) * p.outputs + o.channel) * p.inputs;
    const uint32_t k = edge(node, o, row, w);
    p.choices[(uint64_t)node.place * p.stride + row] = p.mixes ? k * p.outputs + o.channel : o.repetition * p.inputs + k;
}

// The same by what the way up left.
template <class C>
__device__ __forceinline__ void choose_by_inputs(const ConvpcChoose &p, C edge) {
    choose(p, [&](const ConvpcBranch &node, const Output &o, uint32_t row, const float *w) {
        uint32_t k = 0;
        if (p.mixes) {
            k = edge(node, row, w, p.inputs, [&](uint32_t r) {
                double sum = 0.0;
                with_inputs(p.source, node.first, node.count, r, row, [&](const auto &x) { sum = x.in_double(o.channel); });
                return sum;
            });
        } else {
            // What is common to all channels, the offset, makes no difference.
            with_inputs(p.source, node.first, node.count, o.repetition, row, [&](const auto &x) {
                k = edge(node, row, w, p.inputs, [&](uint32_t c) { return x.EXACT ? x.in_double(c) : (double)input(x, c); });
            });
        }
        return k;
    });
}

}  // namespace

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 12) choose_posterior(const ConvpcChoose p) {
    choose_by_inputs(p, Sampled{p.random});
}

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 12) choose_largest(const ConvpcChoose p) {
    choose_by_inputs(p, Largest{});
}

// With nothing observed every input is 0, and tiny weights, which are negative here, are never taken.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) choose_prior(const ConvpcChoose p) {
    choose(p, [&](const ConvpcBranch &node, const Output &, uint32_t row, const float *w) {
        const double u = uniforms(p.random, row, node.number, CONVPC_USE_EDGE).first;
        return pick(p.inputs, u, [&](uint32_t k) { return (double)w[k]; });
    });
}

namespace {

// A binomial variable by inversion of its distribution function.
__device__ __forceinline__ double draw_binomial(const ConvpcDraw &p, double probability, double u) {
    const uint32_t trials = p.values - 1;
    const double success = log(probability), failure = log1p(-probability);
    double below = 0.0;
#pragma unroll 1
    for (uint32_t x = 0; x < trials; ++x) {
        // 0 · (-inf) = 0: what never happens 0 times is certain.
        const double inner = x > 0 ? __dmul_rn(success, (double)x) : 0.0;
        below = __dadd_rn(below, exp(__dadd_rn(__dadd_rn(inner, __dmul_rn(failure, (double)(trials - x))), p.base[x])));
        if (u < below) return x;
    }
    // Reached by rounding too, when the probabilities sum to a little less than u.
    return probability > 0.0 ? trials : 0.0;
}

// A value of the leaf with the parameters t.
__device__ __forceinline__ double draw_value(const ConvpcDraw &p, const double *t, uint32_t row, uint32_t column) {
    const Uniforms u = uniforms(p.random, row, column, CONVPC_USE_VALUE);
    switch (p.family) {
        case CONVPC_FAMILY_NORMAL: {  // Box and Muller (1958)
            const double z = __dmul_rn(__dmul_rn(t[1], sqrt(-2.0 * log(u.first))), cospi(2.0 * u.second));
            return fmin(fmax(__dadd_rn(t[0], z), -CONVPC_LARGEST_VALUE), CONVPC_LARGEST_VALUE);
        }
        case CONVPC_FAMILY_CATEGORICAL: return pick(p.values, u.first, [&](uint32_t k) { return t[k]; });
        default: return draw_binomial(p, t[0], u.first);
    }
}

// The most probable value, the smallest of several.
__device__ __forceinline__ double mode(const ConvpcDraw &p, const double *t) {
    switch (p.family) {
        case CONVPC_FAMILY_NORMAL: return t[0];
        case CONVPC_FAMILY_CATEGORICAL: return arg_max(p.values, [&](uint32_t k) { return t[k]; });
        default: return fmin(fmax(ceil(__dmul_rn((double)p.values, t[0])) - 1.0, 0.0), (double)(p.values - 1));
    }
}

// Rows as they are given, with `value(t, row, column)` where something is missing. A tile goes through shared memory: columns
// are read along rows, and rows are written along columns.
template <class V>
__device__ __forceinline__ void fill(const ConvpcDraw &p, V value) {
    constexpr uint32_t TILE = CONVPC_TRANSPOSE_TILE, LANES = CONVPC_THREADS / TILE;
    __shared__ float tile[TILE][TILE + 1];
    const uint32_t row_tiles = (p.rows + TILE - 1) / TILE;
    const uint32_t row0 = blockIdx.x % row_tiles * TILE, column0 = blockIdx.x / row_tiles * TILE;
    const uint32_t lane = threadIdx.x % TILE, part = threadIdx.x / TILE, row = row0 + lane;
#pragma unroll 1
    for (uint32_t i = part; i < TILE; i += LANES) {
        const uint32_t column = column0 + i;
        if (row >= p.rows || column >= p.columns) break;
        const float given = p.data ? p.data[(uint64_t)column * p.stride + row] : __int_as_float(0x7fffffff);
        float filled = given;
        if (isnan(given)) {
            const uint32_t from = p.from[table(p.mixture, p.choices, p.stride, row) * p.columns + column];
            const Output o(p.choices, from, p.stride, row, p.channels);
            const uint32_t leaf_row = p.leaf_rows ? p.leaf_rows[column] : column;
            const uint64_t leaf = (uint64_t)(leaf_row * p.repetitions + o.repetition) * p.channels + o.channel;
            filled = (float)value(p.parameters + leaf * p.size, row, column);
        }
        tile[i][lane] = filled;
    }
    __syncthreads();
#pragma unroll 1
    for (uint32_t i = part; i < TILE; i += LANES)
        if (row0 + i < p.rows && column0 + lane < p.columns)
            p.to[(uint64_t)(row0 + i) * p.columns + column0 + lane] = tile[lane][i];
}

}  // namespace

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) draw(const ConvpcDraw p) {
    fill(p, [&](const double *t, uint32_t row, uint32_t column) { return draw_value(p, t, row, column); });
}

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) fill_modes(const ConvpcDraw p) {
    fill(p, [&](const double *t, uint32_t, uint32_t) { return mode(p, t); });
}
