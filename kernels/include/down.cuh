// What the kernels of the way down read of a row and a sum node.
#pragma once
#include "source.cuh"

// log(SMALLEST_SUM), above which exp(-y) is far from overflow.
constexpr float SMALLEST_LOG_SUM = -69.0f;

__device__ __forceinline__ uint64_t below_index(const ConvpcDown &p, uint32_t feature, uint32_t repetition, uint32_t channel,
                                                uint32_t row) {
    return ((uint64_t)(repetition * p.sums.features + feature) * p.source.channels + channel) * p.source.rows + row;
}

// The sums of a node and the flows out of them, for a row.
struct Sums {
    const float *y;
    const float *flow;
    uint64_t stride;

    __device__ __forceinline__ Sums(const ConvpcDown &p, uint32_t feature, uint32_t repetition, uint32_t row)
        : y(p.sums.values + value_index(p.sums, p.source.rows, repetition, feature, 0, row)),
          flow(p.flow + (uint64_t)(repetition * p.flow_features + p.parents[repetition * p.sums.features + feature]) *
                        p.sums.channels * p.source.rows + row),
          stride(p.source.rows) {}

    // Calls f with flow / sum of the outputs first, first + step, … below last; 0, and true is returned, where a sum cannot be
    // trusted.
    template <class F>
    __device__ __forceinline__ bool quotients(uint32_t first, uint32_t step, uint32_t last, F f) const {
        const float *sum = y + first * stride, *out = flow + first * stride;
        const uint64_t further = step * stride;
        bool some = false;
#pragma unroll 4
        for (uint32_t d = first; d < last; d += step, sum += further, out += further) {
            const bool trusted = *sum >= SMALLEST_LOG_SUM;
            some |= !trusted && *out > 0.0f;
            f(d, trusted ? *out * exponential(-*sum) : 0.0f);
        }
        return some;
    }
    __device__ __forceinline__ bool is_untrusted(uint32_t d) const {
        return y[d * stride] < SMALLEST_LOG_SUM && flow[d * stride] > 0.0f;
    }
    // The flow from output d to an input x - m through a weight, in logarithms; its posterior probability to a power.
    __device__ __forceinline__ float share(uint32_t d, float weight, float x, float power = 1.0f) const {
        const float f = flow[d * stride];
        // Where nothing flows the sum may be -inf, and -inf - -inf would be NaN.
        return f > 0.0f ? f * exponential(power * (log_weight(weight) + x - y[d * stride])) : 0.0f;
    }
};
