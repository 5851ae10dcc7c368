// Logarithms and exponentials in nats.
#pragma once
#include "params.h"
#include "ptx.cuh"

// Sums of scaled exponentials below this are not trusted: a term lost by flushing below 2^-126 could matter. They are
// computed anew in logarithms.
constexpr float SMALLEST_SUM = 1e-30f;

__device__ __forceinline__ float negative_infinity() { return __int_as_float(0xff800000); }

__device__ __forceinline__ float exponential(float x) { return ptx::exp2(x * 1.44269504088896341f); }

__device__ __forceinline__ float logarithm(float x) { return ptx::log2(x) * 0.693147180559945309f; }

// A sum's weight as it lies in memory. One below the smallest normal float is kept as its logarithm, which is counted by the
// digits of a negative subnormal number: a product treats it as 0, and no positive weight is stored as 0.
__device__ __forceinline__ bool is_tiny(float w) { return __float_as_int(w) < 0; }

__device__ __forceinline__ uint32_t tiny_digits(float w) { return __float_as_uint(w) & 0x7fffff; }

__device__ __forceinline__ double tiny_log(float w) { return tiny_digits(w) * (-1.0 / CONVPC_TINY_STEPS); }

__device__ __forceinline__ float log_weight(float w) {
    return is_tiny(w) ? (float)tiny_digits(w) * (-1.0f / CONVPC_TINY_STEPS) : logarithm(w);
}

__device__ __forceinline__ double exact_log_weight(float w) {
    return is_tiny(w) ? tiny_log(w) : log((double)w);
}

__device__ __forceinline__ double exact_weight(float w) { return is_tiny(w) ? exp(tiny_log(w)) : (double)w; }

__device__ __forceinline__ float stored_weight(double w) {
    constexpr double SMALLEST_NORMAL = 1.1754943508222875e-38;
    if (!(w > 0.0 && w < SMALLEST_NORMAL)) return (float)w;
    return __uint_as_float(0x80000000u | min((uint32_t)(-log(w) * CONVPC_TINY_STEPS + 0.5), 0x7fffffu));
}

// The logarithm of a sum of exponentials, term by term: the sum is kept relative to the largest term so far.
struct Terms {
    float largest = negative_infinity(), sum = 0.0f;

    __device__ __forceinline__ void add(float term) {
        const float above = fmaxf(largest, term);
        // Before the first term of positive probability there is nothing to add, and -inf - -inf would be NaN.
        if (above != negative_infinity()) sum = sum * exponential(largest - above) + exponential(term - above);
        largest = above;
    }
    __device__ __forceinline__ float log_sum() const {
        return largest == negative_infinity() ? largest : largest + logarithm(sum);
    }
};
