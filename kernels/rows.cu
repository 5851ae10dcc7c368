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

// Calls f with each input in turn.
template <class X, class F>
__device__ __forceinline__ void for_inputs(const X &x, uint32_t inputs, F f) {
#pragma unroll 1
    for (uint32_t c0 = 0; c0 < inputs; c0 += CHUNK) {
        float v[CHUNK] = {};
        x.add(c0, 1, v);
#pragma unroll
        for (uint32_t k = 0; k < CHUNK; ++k)
            if (c0 + k < inputs) f(c0 + k, v[k]);
    }
}

template <class X>
__device__ __forceinline__ float largest(const X &x, uint32_t inputs) {
    float m = negative_infinity();
    for_inputs(x, inputs, [&](uint32_t, float v) { m = fmaxf(m, v); });
    return m == negative_infinity() ? 0.0f : m;
}

// One node's outputs in the semiring of `MAX`; `m` is the largest input.
template <bool MAX, class X>
__device__ __forceinline__ void outputs(const ConvpcRows &p, const Place &place, const X &x, float m) {
    const uint32_t inputs = p.source.channels, n = p.output.channels;
    const float *w = p.linear + (uint64_t)(place.node.group * p.source.repetitions + place.node.repetition) * n * inputs;
    float *to = p.output.values + value_index(p.output, p.source.rows, place.node.repetition, place.node.feature, 0, place.row);
#pragma unroll 1
    for (uint32_t d0 = 0; d0 < n; d0 += CONVPC_ROWS_OUTPUTS) {
        float y[CONVPC_ROWS_OUTPUTS];
#pragma unroll
        for (uint32_t j = 0; j < CONVPC_ROWS_OUTPUTS; ++j) y[j] = MAX ? negative_infinity() : 0.0f;
        for_inputs(x, inputs, [&](uint32_t c, float input) {
            const float v = MAX ? input - m : exponential(input - m);
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
                to[(uint64_t)d * p.source.rows] = log_sum(x, w + (uint64_t)d * inputs, inputs) - m;
    }
}

template <bool MAX>
__device__ __forceinline__ void sum_rows(const ConvpcRows &p) {
    const Place place(p);
    if (place.row >= p.rows) return;
    with_inputs(p.source, place.node.first, place.node.count, place.node.repetition, place.row, [&](const auto &x) {
        const float m = largest(x, p.source.channels);
        outputs<MAX>(p, place, x, m);
        leave(p.output, offset_index(p.output, p.source.rows, place.node.repetition, place.node.feature, place.row),
              x.offset() + m, m);
    });
}

}  // namespace

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 8) lse_rows(const ConvpcRows p) { sum_rows<false>(p); }

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 8) max_rows(const ConvpcRows p) { sum_rows<true>(p); }

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) gather(const ConvpcRows p) {
    const Place place(p);
    if (place.row >= p.rows) return;
    with_inputs(p.source, place.node.first, place.node.count, place.node.repetition, place.row, [&](const auto &x) {
#pragma unroll 1
        for (uint32_t c = 0; c < p.source.channels; ++c)
            p.output.values[value_index(p.output, p.source.rows, place.node.repetition, place.node.feature, c, place.row)] =
                input(x, c);
        p.output.offsets[offset_index(p.output, p.source.rows, place.node.repetition, place.node.feature, place.row)] =
            x.offset();
    });
}
