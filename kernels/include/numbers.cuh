// Logarithms and exponentials in nats.
#pragma once
#include "ptx.cuh"

// Sums of scaled exponentials below this are not trusted: a term lost by flushing below 2^-126 could matter. They are
// computed anew in logarithms.
constexpr float SMALLEST_SUM = 1e-30f;

__device__ __forceinline__ float negative_infinity() { return __int_as_float(0xff800000); }

__device__ __forceinline__ float exponential(float x) { return ptx::exp2(x * 1.44269504088896341f); }

__device__ __forceinline__ float logarithm(float x) { return ptx::log2(x) * 0.693147180559945309f; }

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
