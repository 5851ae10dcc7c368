// A thread takes one row through one node: sums with few outputs (the root, small circuits), the max-product semiring, and
// products or leaves written out as they are.
//
// Nothing is shared between threads; neighbouring threads read neighbouring rows, and every weight is a broadcast. A sum
// reads its inputs twice, once for the maximum; where outputs do not fit the registers they are read again.
#include "source.cuh"

namespace {

// Which node and row a thread works on: row tiles innermost, so that blocks that run together share weights.
struct Place {
    ConvpcNode node;
    uint32_t row;

    __device__ explicit Place(const ConvpcRows &p) {
        node = p.nodes[blockIdx.x / p.row_tiles];
        row = blockIdx.x % p.row_tiles * CONVPC_THREADS + threadIdx.x;
    }
};

// Inputs that a thread takes at a time, so that their loads are under way together: rows are few where this kernel runs, and
// nothing else hides how long a load takes.
constexpr uint32_t CHUNK = 4;

// Calls f with each input in turn; `read` reads a chunk of them.
template <class R, class F>
__device__ __forceinline__ void for_inputs(uint32_t inputs, R read, F f) {
#pragma unroll 1
    for (uint32_t c0 = 0; c0 < inputs; c0 += CHUNK) {
        float v[CHUNK] = {};
        read(c0, v);
#pragma unroll
        for (uint32_t k = 0; k < CHUNK; ++k)
            if (c0 + k < inputs) f(c0 + k, v[k]);
    }
}

// The largest input, 0 where all are -inf, and the log-likelihood that it stands for.
struct Largest {
    float input;
    double total;

    template <class X>
    __device__ __forceinline__ Largest(const X &x, uint32_t inputs) {
        float m = negative_infinity();
        uint32_t channel = 0;
        const auto read = [&](uint32_t c, float (&v)[CHUNK]) { x.add(c, 1, v); };
        for_inputs(inputs, read, [&](uint32_t c, float v) {
            if (X::EXACT && v > m) channel = c;
            m = fmaxf(m, v);
        });
        input = m == negative_infinity() ? 0.0f : m;
        if constexpr (X::EXACT) total = x.is_far(input) ? largest_in_double(x, inputs) : x.in_double(channel);
        else total = x.offset() + input;
    }
};

// One node's outputs in the semiring of `MAX`.
template <bool MAX, class X>
__device__ __forceinline__ void outputs(const ConvpcRows &p, const Place &place, const X &x, const Largest &largest) {
    const uint32_t inputs = p.source.channels, n = p.output.channels;
    const float *w = p.linear + (uint64_t)(place.node.group * p.source.repetitions + place.node.repetition) * n * inputs;
    float *to = p.output.values + value_index(p.output, p.source.rows, place.node.repetition, place.node.feature, 0, place.row);
#pragma unroll 1
    for (uint32_t d0 = 0; d0 < n; d0 += CONVPC_ROWS_OUTPUTS) {
        float y[CONVPC_ROWS_OUTPUTS];
#pragma unroll
        for (uint32_t j = 0; j < CONVPC_ROWS_OUTPUTS; ++j) y[j] = MAX ? negative_infinity() : 0.0f;
        const auto read = [&](uint32_t c, float (&v)[CHUNK]) { add_relative(x, largest.input, &largest.total, c, 1, v); };
        for_inputs(inputs, read, [&](uint32_t c, float input) {
            const float v = MAX ? input : exponential(input);
#pragma unroll
            for (uint32_t j = 0; j < CONVPC_ROWS_OUTPUTS; ++j) {
                if (d0 + j >= n) break;
                const float weight = w[(d0 + j) * inputs + c];
                y[j] = MAX ? fmaxf(y[j], log_weight(weight) + v) : fmaf(weight, v, y[j]);
            }
        });
#pragma unroll
        for (uint32_t j = 0; j < CONVPC_ROWS_OUTPUTS; ++j)
            if (d0 + j < n) to[(uint64_t)(d0 + j) * p.source.rows] = MAX ? y[j] : logarithm(y[j]);
        if (MAX) continue;
        bool untrusted = false;
#pragma unroll
        for (uint32_t j = 0; j < CONVPC_ROWS_OUTPUTS; ++j) untrusted |= d0 + j < n && y[j] < SMALLEST_SUM;
        if (!untrusted) continue;
#pragma unroll 1
        for (uint32_t d = d0; d < min(d0 + CONVPC_ROWS_OUTPUTS, n); ++d)
            // log(SMALLEST_SUM) = -69.08; the logarithm of tiny weights alone, which are negative in a product, is none.
            if (!(to[(uint64_t)d * p.source.rows] >= -69.0f))
                to[(uint64_t)d * p.source.rows] =
                    log_sum(x, w + (uint64_t)d * inputs, inputs, largest.input, &largest.total);
    }
}

template <bool MAX>
__device__ __forceinline__ void sum_rows(const ConvpcRows &p) {
    const Place place(p);
    if (place.row >= p.rows) return;
    with_inputs(p.source, place.node.first, place.node.count, place.node.repetition, place.row, [&](const auto &x) {
        const Largest largest(x, p.source.channels);
        outputs<MAX>(p, place, x, largest);
        leave(p.output, offset_index(p.output, p.source.rows, place.node.repetition, place.node.feature, place.row),
              largest.total, largest.input);
    });
}

}  // namespace

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 8) lse_rows(const ConvpcRows p) { sum_rows<false>(p); }

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 8) max_rows(const ConvpcRows p) { sum_rows<true>(p); }

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) gather(const ConvpcRows p) {
    const Place place(p);
    if (place.row >= p.rows) return;
    with_inputs(p.source, place.node.first, place.node.count, place.node.repetition, place.row, [&](const auto &x) {
        // Relative to the largest, what is left has the digits that count. A row that is beyond the range of f32 is refused by all
        // kernels alike.
        double largest = largest_in_double(x, p.source.channels);
        const bool beyond = x.EXACT && largest < -3.4028234e38;
        if (beyond) largest = 0.0;
#pragma unroll 1
        for (uint32_t c = 0; c < p.source.channels; ++c)
            p.output.values[value_index(p.output, p.source.rows, place.node.repetition, place.node.feature, c, place.row)] =
                beyond ? negative_infinity() : (float)(x.in_double(c) - largest);
        p.output.offsets[offset_index(p.output, p.source.rows, place.node.repetition, place.node.feature, place.row)] = largest;
    });
}
