// What steps of all kinds share.
#pragma once
#include "params.h"
#include "warp.cuh"

__device__ __forceinline__ uint64_t warp_number() {
    return (uint64_t)blockIdx.x * (CONVPC_THREADS / 32) + threadIdx.x / 32;
}

__device__ __forceinline__ uint64_t thread_number() { return (uint64_t)blockIdx.x * CONVPC_THREADS + threadIdx.x; }

// The sum of n values, in every lane; lanes stride over them.
template <class T>
__device__ __forceinline__ double sum_of(const T *x, uint32_t n) {
    double sum = 0.0;
    for (uint32_t i = threadIdx.x % 32; i < n; i += 32) sum += x[i];
    return warp_sum(sum);
}

// What the gradient is multiplied with.
__device__ __forceinline__ double slope(const ConvpcAscent &a) {
    if (!a.all_squares) return a.scale;
    const double norm = a.scale * sqrt(*a.all_squares);
    return norm > a.clip ? a.scale * (a.clip / norm) : a.scale;
}

// How far parameter `at` moves, given its gradient.
__device__ __forceinline__ double ascent(const ConvpcAscent &a, uint64_t at, double g) {
    const double mean = a.beta1 * a.first[at] + (1.0 - a.beta1) * g;
    const double square = a.beta2 * a.second[at] + (1.0 - a.beta2) * g * g;
    a.first[at] = mean;
    a.second[at] = square;
    return a.step * (mean / a.bias1) / (sqrt(square / a.bias2) + a.epsilon);
}

// The expected count of what was there before.
__device__ __forceinline__ double expected(const ConvpcBlend &b, uint64_t at) { return b.used ? b.expected * b.used[at] : 0.0; }
