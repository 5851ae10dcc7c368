// Repetitions become one: y[c] = log sum_r w[c,r] exp x[c,r], or the largest term. The node's offset is the largest of the
// log-likelihoods with a weight, which are compared in float64: repetitions have offsets of their own, and they may be far apart.
//
// A thread takes one row of one node. Few numbers are mixed, so all is done in logarithms.
#include "source.cuh"

namespace {

// Calls f with the inputs of one repetition.
template <class F>
__device__ __forceinline__ void of_repetition(const ConvpcRows &p, const ConvpcNode &node, uint32_t r, uint32_t row, F f) {
    with_inputs(p.source, node.first, node.count, r, row, f);
}

template <bool MAX>
__device__ __forceinline__ void mix_rows(const ConvpcRows &p) {
    const ConvpcNode node = p.nodes[blockIdx.x / p.row_tiles];
    const uint32_t row = blockIdx.x % p.row_tiles * CONVPC_THREADS + threadIdx.x;
    const uint32_t repetitions = p.source.repetitions;
    if (row >= p.rows) return;
    const float *weights = p.linear + (uint64_t)node.group * p.source.channels * repetitions;
    double base = (double)negative_infinity();
#pragma unroll 1
    for (uint32_t r = 0; r < repetitions; ++r)
        of_repetition(p, node, r, row, [&](const auto &x) {
#pragma unroll 1
            for (uint32_t c = 0; c < p.source.channels; ++c)
                if (weights[c * repetitions + r] != 0.0f) base = fmax(base, x.in_double(c));
        });
    // Where every input is -inf there is nothing to subtract.
    if (base == (double)negative_infinity()) base = 0.0;
#pragma unroll 1
    for (uint32_t c = 0; c < p.source.channels; ++c) {
        const float *w = weights + c * repetitions;
        Terms terms;
#pragma unroll 1
        for (uint32_t r = 0; r < repetitions; ++r)
            of_repetition(p, node, r, row, [&](const auto &x) { terms.add(log_weight(w[r]) + (float)(x.in_double(c) - base)); });
        p.output.values[value_index(p.output, p.source.rows, 0, node.feature, c, row)] = MAX ? terms.largest : terms.log_sum();
    }
    p.output.offsets[offset_index(p.output, p.source.rows, 0, node.feature, row)] = base;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) mix(const ConvpcRows p) { mix_rows<false>(p); }

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) mix_max(const ConvpcRows p) { mix_rows<true>(p); }
