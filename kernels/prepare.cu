// What data and weights go through once before the upward pass reads them.
#include "params.h"
#include "ptx.cuh"
#include "warp.cuh"

// [row][column] to [column][row]. A tile goes through shared memory, so that both sides are read and written in whole lines;
// the extra column keeps the lanes of a warp on different banks.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) transpose(const ConvpcTranspose p) {
    constexpr uint32_t TILE = CONVPC_TRANSPOSE_TILE, LANES = CONVPC_THREADS / TILE;
    __shared__ float tile[TILE][TILE + 1];
    const uint32_t row_tiles = p.rows / TILE;
    const uint32_t row0 = blockIdx.x % row_tiles * TILE, column0 = blockIdx.x / row_tiles * TILE;
    const uint32_t lane = threadIdx.x % TILE, part = threadIdx.x / TILE;
    for (uint32_t i = part; i < TILE; i += LANES) {
        const uint32_t row = row0 + i, column = column0 + lane;
        const bool inside = row < p.given && column < p.columns;
        tile[i][lane] = inside ? p.from[(uint64_t)row * p.columns + column] : __int_as_float(0x7fffffff);
    }
    __syncthreads();
    for (uint32_t i = part; i < TILE; i += LANES)
        if (column0 + i < p.columns) p.to[(uint64_t)(column0 + i) * p.rows + row0 + lane] = tile[lane][i];
}

namespace {

// Weight (output, input) of a matrix, 0 where it is tiny (numbers.cuh); 0 beyond it, so that every tile is whole.
__device__ __forceinline__ float weight(const ConvpcPack &p, uint32_t matrix, uint32_t output, uint32_t input) {
    const uint64_t at = (uint64_t)matrix * p.outputs * p.inputs + output * p.output_stride + input * p.input_stride;
    return output < p.outputs && input < p.inputs ? fmaxf(p.linear[at], 0.0f) : 0.0f;
}

// A thread writes the four registers of one lane of one fragment (and of its low part), which a warp of lse_fused then reads
// as one coalesced load of 16 bytes a lane. The maps are those of ptx::mma_tf32.
template <int PRECISION>
__device__ __forceinline__ void pack(const ConvpcPack &p) {
    constexpr uint32_t PARTS = PRECISION == CONVPC_PRECISION_F32 ? 2 : 1;
    constexpr uint32_t PAIR = PRECISION == CONVPC_PRECISION_BF16 ? 2 : 1;  // inputs of an operand row
    const uint32_t tiles = (p.outputs + CONVPC_TILE_OUTPUTS - 1) / CONVPC_TILE_OUTPUTS;
    const uint32_t steps = (p.inputs + PAIR * CONVPC_STEP_ROWS - 1) / (PAIR * CONVPC_STEP_ROWS);
    const uint64_t at = (uint64_t)blockIdx.x * CONVPC_THREADS + threadIdx.x;
    const uint32_t lane = at % 32, g = lane / 4, t = lane % 4;
    const uint64_t fragment = at / 32;
    if (fragment >= (uint64_t)p.matrices * tiles * steps) return;
    const uint32_t step = fragment % steps, tile = fragment / steps % tiles, matrix = fragment / steps / tiles;
    uint32_t high[4], low[4];
#pragma unroll
    for (uint32_t r = 0; r < 4; ++r) {
        const uint32_t output = tile * CONVPC_TILE_OUTPUTS + g + r % 2 * 8;
        const uint32_t input = (step * CONVPC_STEP_ROWS + t + r / 2 * 4) * PAIR;
        const float w = weight(p, matrix, output, input);
        if (PRECISION == CONVPC_PRECISION_BF16) {
            high[r] = ptx::to_bf16x2(w, weight(p, matrix, output, input + 1));
        } else {
            high[r] = ptx::to_tf32(w);
            low[r] = ptx::to_tf32(w - __uint_as_float(high[r]));
        }
    }
    uint4 *to = reinterpret_cast<uint4 *>(p.packed) + fragment * PARTS * 32 + lane;
    to[0] = make_uint4(high[0], high[1], high[2], high[3]);
    if (PARTS == 2) to[32] = make_uint4(low[0], low[1], low[2], low[3]);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) pack_f32(const ConvpcPack p) { pack<CONVPC_PRECISION_F32>(p); }
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) pack_tf32(const ConvpcPack p) { pack<CONVPC_PRECISION_TF32>(p); }
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) pack_bf16(const ConvpcPack p) { pack<CONVPC_PRECISION_BF16>(p); }

// The coefficients of Normal leaves: a warp takes the channels of a leaf row and repetition. In f32 their log-densities are relative to
// that of the narrowest at its mean.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) lay_location_scale(const ConvpcLayLeaves p) {
    const uint32_t place = blockIdx.x * (CONVPC_THREADS / 32) + threadIdx.x / 32;
    if (place >= p.places) return;
    const double half_log_tau = 0.91893853320467274178, root_half = 0.70710678118654752440;
    const double *theta = p.theta + (uint64_t)place * p.channels * 2;
    double largest_rate = 0.0;
    for (uint32_t c = threadIdx.x % 32; c < p.channels; c += 32) largest_rate = fmax(largest_rate, 1.0 / theta[2 * c + 1]);
    const double narrowest = -log(warp_max(largest_rate));
    for (uint32_t c = threadIdx.x % 32; c < p.channels; c += 32) {
        const uint64_t leaf = (uint64_t)place * p.channels + c;
        const double mean = theta[2 * c], rate = root_half / theta[2 * c + 1], log_std = log(theta[2 * c + 1]);
        double *exact = p.exact + 3 * leaf;
        exact[0] = mean, exact[1] = rate, exact[2] = log_std + half_log_tau;
        reinterpret_cast<float4 *>(p.leaves)[leaf] =
            make_float4((float)mean, (float)rate, (float)(log_std - narrowest), (float)(mean - (float)mean));
    }
}
