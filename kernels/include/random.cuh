// Random numbers as a function of (seed, row, node, use): the counters and uniforms of convpc-core's rng, so that a sample
// does not depend on the backend.
#pragma once
#include <stdint.h>

#include "params.h"

// The generator of Salmon et al. (2011), Philox4x32-10: four words of a counter to four random ones.
__device__ __forceinline__ void philox(uint32_t (&c)[4], uint32_t key0, uint32_t key1) {
#pragma unroll
    for (uint32_t round = 0; round < 10; ++round) {
        const uint64_t p = (uint64_t)0xd2511f53u * c[0], q = (uint64_t)0xcd9e8d57u * c[2];
        c[0] = (uint32_t)(q >> 32) ^ c[1] ^ key0, c[1] = (uint32_t)q;
        c[2] = (uint32_t)(p >> 32) ^ c[3] ^ key1, c[3] = (uint32_t)p;
        key0 += 0x9e3779b9u, key1 += 0xbb67ae85u;
    }
}

struct Uniforms {
    double first, second;
};

// 52 bits in the middle of their step of the open interval (0, 1): exact in float64.
__device__ __forceinline__ double unit(uint32_t high, uint32_t low) {
    return ((double)((uint64_t)high << 20 | low >> 12) + 0.5) * 0x1p-52;
}

// Two independent numbers for one use of a node by a row.
__device__ __forceinline__ Uniforms uniforms(const ConvpcRandom &random, uint32_t row, uint32_t node, uint32_t use) {
    const uint64_t number = random.first_row + row;
    uint32_t c[4] = {(uint32_t)number, (uint32_t)(number >> 32), node, use};
    philox(c, (uint32_t)random.seed, (uint32_t)(random.seed >> 32));
    return {unit(c[0], c[1]), unit(c[2], c[3])};
}
