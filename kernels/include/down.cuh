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
          flow(p.flow + (uint64_t)(repetition * p.flow_features + p.parents[feature]) * p.sums.channels * p.source.rows + row),
          stride(p.source.rows) {}

    // flow / sum of output d; 0 and `some` where the sum cannot be trusted.
    __device__ __forceinline__ float quotient(uint32_t d, bool &some) const {
        const float f = flow[d * stride], log_sum = y[d * stride];
        const bool trusted = log_sum >= SMALLEST_LOG_SUM;
        some |= !trusted && f > 0.0f;
        return trusted ? f * exponential(-log_sum) : 0.0f;
    }
    __device__ __forceinline__ bool is_untrusted(uint32_t d) const {
        return y[d * stride] < SMALLEST_LOG_SUM && flow[d * stride] > 0.0f;
    }
    // The flow from output d to an input x - m through a weight, in logarithms.
    __device__ __forceinline__ float share(uint32_t d, float weight, float x) const {
        const float f = flow[d * stride];
        // Where nothing flows the sum may be -inf, and -inf - -inf would be NaN.
        return f > 0.0f ? f * exponential(logarithm(weight) + x - y[d * stride]) : 0.0f;
    }
};
