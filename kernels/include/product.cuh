// Weights times an operand in shared memory, on tensor cores.
//
// A block multiplies matrices of weights, which come from global memory as ready fragments (see prepare.cu), 16 bytes a lane,
// with an operand in shared memory of as many rows as the weights have inputs and NB columns: the rows of a batch. WARPS_N
// warps lie side by side along the columns, the others along the outputs; each has MT tiles of 16 outputs and NT tiles of 8
// columns. No barrier inside.
#pragma once
#include "numbers.cuh"
#include "params.h"

constexpr uint32_t WARPS = CONVPC_THREADS / 32;

// An f32 number as the sum of two tf32 ones.
struct Split {
    uint32_t high, low;

    __device__ __forceinline__ explicit Split(float x)
        : high(ptx::to_tf32(x)), low(ptx::to_tf32(x - __uint_as_float(high))) {}
};

template <int PRECISION, int MT, int NT, int WARPS_N>
struct Product {
    static constexpr uint32_t NB = 8 * NT * WARPS_N, LD = NB + CONVPC_OPERAND_PADDING;
    static constexpr uint32_t WARPS_M = WARPS / WARPS_N;
    // Inputs of an operand row, and numbers that stand for a weight.
    static constexpr bool PAIRS = PRECISION == CONVPC_PRECISION_BF16;
    static constexpr uint32_t INPUTS = PAIRS ? 2 : 1, PARTS = PRECISION == CONVPC_PRECISION_F32 ? 2 : 1;
    static_assert(NB <= CONVPC_THREADS && CONVPC_THREADS % NB == 0 && WARPS % WARPS_N == 0, "threads split evenly");
    // Lanes read (t, g) of the operand at bank 8t + g or 24t + g: all 32 differ.
    static_assert(LD % 32 == 8 || LD % 32 == 24, "bank conflicts");

    __device__ static __forceinline__ uint32_t steps(uint32_t inputs) {
        return (inputs + INPUTS * CONVPC_STEP_ROWS - 1) / (INPUTS * CONVPC_STEP_ROWS);
    }
    // Inputs for which the operand has room: beyond those that there are it must be 0.
    __device__ static __forceinline__ uint32_t filled(uint32_t inputs) { return steps(inputs) * CONVPC_STEP_ROWS * INPUTS; }

    // Input c of a column to its place in the operand.
    __device__ static __forceinline__ void store(uint32_t *operand, uint32_t c, uint32_t column, float e) {
        if (PAIRS)
            reinterpret_cast<uint16_t *>(operand)[(c / 2 * LD + column) * 2 + c % 2] = ptx::to_bf16(e);
        else
            operand[c * LD + column] = PRECISION == CONVPC_PRECISION_TF32 ? ptx::to_tf32(e) : __float_as_uint(e);
    }

    // Output and column of element r of fragment (i, j) in this warp's piece.
    __device__ static __forceinline__ uint32_t output_of(uint32_t tile, uint32_t r) {
        return tile * CONVPC_TILE_OUTPUTS + threadIdx.x % 32 / 4 + r / 2 * 8;
    }
    __device__ static __forceinline__ uint32_t column_of(uint32_t j, uint32_t r) {
        return threadIdx.x / 32 % WARPS_N * (8 * NT) + j * 8 + threadIdx.x % 4 * 2 + r % 2;
    }

    // The first tile of outputs of this warp; the next is WARPS_M * MT further.
    __device__ static __forceinline__ uint32_t first_tile() { return threadIdx.x / 32 / WARPS_N * MT; }

    // d += W · operand for the outputs of MT tiles of a matrix with `tiles` of them; the operand has the inputs of `count` of
    // the matrix's `steps` steps, those from `first` on.
    __device__ static __forceinline__ void multiply(const uint32_t *packed, const uint32_t *operand, uint32_t steps,
                                                    uint32_t first, uint32_t count, uint32_t matrix, uint32_t tile0,
                                                    uint32_t tiles, float (&d)[MT][NT][4]) {
        const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const uint4 *from = reinterpret_cast<const uint4 *>(packed) +
                            ((uint64_t)(matrix * tiles + tile0) * steps + first) * PARTS * 32 + lane;
        const uint32_t *b0 = operand + t * LD + threadIdx.x / 32 % WARPS_N * (8 * NT) + g;
        for (uint32_t k = 0; k < count; ++k) {
            uint32_t a[MT][PARTS][4];
#pragma unroll
            for (uint32_t i = 0; i < MT; ++i)
#pragma unroll
                for (uint32_t part = 0; part < PARTS; ++part) {
                    const uint4 v = tile0 + i < tiles ? from[((uint64_t)i * steps + k) * PARTS * 32 + part * 32]
                                                      : make_uint4(0, 0, 0, 0);
                    a[i][part][0] = v.x, a[i][part][1] = v.y, a[i][part][2] = v.z, a[i][part][3] = v.w;
                }
#pragma unroll
            for (uint32_t j = 0; j < NT; ++j) {
                const uint32_t *b = b0 + k * CONVPC_STEP_ROWS * LD + j * 8;
                const uint32_t raw[2] = {b[0], b[4 * LD]};
                if (PRECISION == CONVPC_PRECISION_F32) {
                    // The small products first, so that they are not lost beside the large one.
                    uint32_t high[2], low[2];
#pragma unroll
                    for (uint32_t r = 0; r < 2; ++r) {
                        const Split x(__uint_as_float(raw[r]));
                        high[r] = x.high, low[r] = x.low;
                    }
#pragma unroll
                    for (uint32_t i = 0; i < MT; ++i) {
                        ptx::mma_tf32(d[i][j], a[i][PARTS - 1], high);
                        ptx::mma_tf32(d[i][j], a[i][0], low);
                        ptx::mma_tf32(d[i][j], a[i][0], high);
                    }
                } else {
#pragma unroll
                    for (uint32_t i = 0; i < MT; ++i)
                        if (PAIRS) ptx::mma_bf16(d[i][j], a[i][0], raw);
                        else ptx::mma_tf32(d[i][j], a[i][0], raw);
                }
            }
        }
    }
};
