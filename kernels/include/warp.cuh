// Sums and maxima over a warp.
#pragma once
#include <stdint.h>

// The sum of the lanes' values, in every lane: by halves, so that the order is always the same.
__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
    for (uint32_t offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

// The largest of the lanes' values, in every lane.
template <class T>
__device__ __forceinline__ T warp_max(T x) {
#pragma unroll
    for (uint32_t offset = 16; offset > 0; offset /= 2) {
        const T other = __shfl_xor_sync(0xffffffffu, x, offset);
        x = other > x ? other : x;
    }
    return x;
}
