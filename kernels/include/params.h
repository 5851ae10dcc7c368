/*
 * What the host passes to the kernels. Plain C: the kernels include it, and `cargo xtask bindings` makes Rust of it.
 *
 * Activations lie in memory as [repetition][feature][channel][row], offsets as [repetition][feature][row]; the
 * log-likelihood of a channel is its activation plus the offset. Offsets are float64: those of different nodes may be
 * large, of both signs, and cancel. `rows` is always a multiple of every tile: rows that fill
 * up the last tile hold missing values.
 */
#ifndef CONVPC_PARAMS_H
#define CONVPC_PARAMS_H

#include <stdint.h>

#ifdef __CUDACC_RTC__
#define CONVPC_POINTER(type) type *
#else
/* A device address: the host never follows it. */
#define CONVPC_POINTER(type) uint64_t
#endif

/** Threads of a block, in every kernel. */
#define CONVPC_THREADS 128

/** The rows of a batch are filled up to a multiple of this: the widest tile. */
#define CONVPC_ROW_MULTIPLE 128

/** Output channels that `lse_rows` and `max_rows` keep in registers. */
#define CONVPC_ROWS_OUTPUTS 8

/** Columns and rows of a tile of `transpose`. */
#define CONVPC_TRANSPOSE_TILE 32

/** Words of a value in the histogram of a warp: a lane each, and one more, so that a warp that reads one lane's column of
 *  many values hits 32 banks. */
#define CONVPC_HISTOGRAM_LANES 33

/** Values added to a row of an operand in shared memory, so that the lanes of a fragment hit 32 banks. */
#define CONVPC_OPERAND_PADDING 8

/** Output channels of a tensor-core tile. */
#define CONVPC_TILE_OUTPUTS 16

/** Operand rows of a tensor-core step: values, or pairs of bf16. */
#define CONVPC_STEP_ROWS 8

/** Outputs, and inputs, of the weights whose counts a block gathers. */
#define CONVPC_COUNTS_TILE 64

/** Rows of the batch that counts_*_base takes at a time. */
#define CONVPC_COUNTS_ROWS_BASE 64

/** Rows of the batch that counts_*_slim takes at a time. */
#define CONVPC_COUNTS_ROWS_SLIM 16

/** The output feature of a node that is there to fill up a block. */
#define CONVPC_NO_FEATURE 0xffffffff

/** The inputs are activations of a layer below. */
#define CONVPC_SOURCE_NODES 0
/** The inputs are Normal leaves: parameters mean, √½/std, how far the log-density at the mean is below that of the narrowest
 *  of the variable's channels, and the part of the mean that rounding to f32 lost. */
#define CONVPC_SOURCE_LOCATION_SCALE 1
/** The inputs are tables: the log-density of each value, then that of the mode. */
#define CONVPC_SOURCE_TABLE 2
/** The inputs are binomials: the mode m, the logit of a success, log p(m) minus the second number of h(m), the first of h(m). */
#define CONVPC_SOURCE_NATURAL 3

// The largest value and mean of a Normal leaf, of either sign, and its largest standard deviation: those of core.
#define CONVPC_LARGEST_VALUE 1e38

/** Trials up to which binomial leaves are as exact as all else. */
#define CONVPC_MOST_TRIALS 262144

/** A weight below the smallest normal float is stored as its logarithm, in so many steps a nat; see numbers.cuh. All of the
 *  doubles' fit into 23 bits: -log(5e-324) = 744.4. */
#define CONVPC_TINY_STEPS 11264

/** The place of a choice that there is not: the root's own, channel 0 of repetition 0. */
#define CONVPC_NO_PLACE 0xffffffff

/** A random number's use, a word of its counter: choosing an edge at a sum. */
#define CONVPC_USE_EDGE 0
/** Drawing a value at a leaf. */
#define CONVPC_USE_VALUE 1

/** Parameters mean and standard deviation. */
#define CONVPC_FAMILY_NORMAL 0
/** Parameters: the probability of each value. */
#define CONVPC_FAMILY_CATEGORICAL 1
/** Parameter: the probability of a success. */
#define CONVPC_FAMILY_BINOMIAL 2

/** 3xTF32: each operand as a sum of two tf32 numbers, and three products. */
#define CONVPC_PRECISION_F32 0
/** Operands rounded to tf32. */
#define CONVPC_PRECISION_TF32 1
/** Operands rounded to bf16. */
#define CONVPC_PRECISION_BF16 2

/** Where the inputs of a node come from: a list of features of a layer below, or of data columns. */
typedef struct ConvpcSource {
    /** [repetition][feature][channel][row]; null for leaves. */
    CONVPC_POINTER(const float) values;
    /** [repetition][feature][row]; null for leaves. */
    CONVPC_POINTER(const double) offsets;
    /** [column][row], NaN = missing; null for nodes. */
    CONVPC_POINTER(const float) data;
    /** [leaf row][repetition][channel][leaf_stride]; null for nodes. */
    CONVPC_POINTER(const float) leaves;
    /** Normal leaves: [leaf row][repetition][channel][3], the mean, √½/std and minus the log-density at the mean. */
    CONVPC_POINTER(const double) exact;
    /** [column]: the row of `leaves` with its distributions, where columns share them; null: each has its own. */
    CONVPC_POINTER(const uint32_t) leaf_rows;
    /** Natural form: [value][2], h(x) as a sum of two numbers. */
    CONVPC_POINTER(const float) base;
    /** Features or columns; steps and nodes name ranges of it. */
    CONVPC_POINTER(const uint32_t) list;
    /** CONVPC_SOURCE_... */
    uint32_t kind;
    /** Channels of each input. */
    uint32_t channels;
    /** Features of `values`. */
    uint32_t features;
    /** Repetitions of `values` and `leaves`. */
    uint32_t repetitions;
    /** Rows of the batch, filled up. */
    uint32_t rows;
    /** Parameters of one leaf. */
    uint32_t leaf_stride;
    /** Whether a missing value adds the log-density of its mode (max-product) instead of 0. */
    uint32_t max_product;
} ConvpcSource;

/** A range of a source's list, and the feature and repetition of the output that it makes. */
typedef struct ConvpcNode {
    /** Output feature. */
    uint32_t feature;
    /** Of the output; a mixture of repetitions has but one, and reads all. */
    uint32_t repetition;
    /** Which weights: one matrix a group and repetition. */
    uint32_t group;
    /** Where the node's inputs begin in the source's list. */
    uint32_t first;
    /** How many they are. */
    uint32_t count;
} ConvpcNode;

/** The outputs of a launch. */
typedef struct ConvpcOutput {
    /** [repetition][feature][channel][row] */
    CONVPC_POINTER(float) values;
    /** [repetition][feature][row] */
    CONVPC_POINTER(double) offsets;
    /** [repetition][feature][row], the largest input of each sum, which the way down subtracts again; null where there is
     *  no way down. */
    CONVPC_POINTER(float) maxima;
    /** Features of `values`. */
    uint32_t features;
    /** Channels of `values`. */
    uint32_t channels;
} ConvpcOutput;

/** A sum layer within a fused launch. */
typedef struct ConvpcLevel {
    /** Weights as tensor-core fragments, [matrix][output tile][step][part][lane][4]; see pack.cu. */
    CONVPC_POINTER(const uint32_t) packed;
    /** The same weights, [matrix][output][input], for sums too small to be trusted. */
    CONVPC_POINTER(const float) linear;
    /** Input channels. */
    uint32_t inputs;
    /** Output channels. */
    uint32_t outputs;
    /** Where its inputs are in the accumulators (not for level 0), in values. */
    uint32_t from;
    /** Where its outputs are added in the accumulators (not for the last level), in values. */
    uint32_t to;
} ConvpcLevel;

/** One sum node of a fused launch; children come before their parent. */
typedef struct ConvpcStep {
    /** Its level: 0 reads the source, the last writes the output. */
    uint32_t level;
    /** Which weights: one matrix a group and repetition. */
    uint32_t group;
    /** Level 0: where its inputs begin in the source's list. */
    uint32_t first;
    /** Level 0: how many they are. */
    uint32_t count;
    /** Whether it is its parent's first child, whose outputs replace what the accumulator holds. */
    uint32_t fresh;
} ConvpcStep;

/** lse_fused_*: one block takes a tile of rows through a subtree of sums. */
typedef struct ConvpcFused {
    ConvpcSource source;
    ConvpcOutput output;
    /** [levels] */
    CONVPC_POINTER(const ConvpcLevel) levels;
    /** All steps, by output node. */
    CONVPC_POINTER(const ConvpcStep) steps;
    /** Output nodes: `first` and `count` are a range of the steps, `group` is not read. Folded: `fold` nodes a block, which
     *  share weights and have one step each; CONVPC_NO_FEATURE fills up the last block of a group. */
    CONVPC_POINTER(const ConvpcNode) nodes;
    /** Nodes whose rows lie side by side in a tile: 1 but for the folded kernels. */
    uint32_t fold;
    uint32_t level_count;
    uint32_t row_tiles;
    /** Values of the operand in shared memory. */
    uint32_t operand;
    /** Values of the accumulators in shared memory. */
    uint32_t accumulators;
} ConvpcFused;

/** lse_rows, max_rows, gather, mix, mix_max: a thread takes a row through one node. */
typedef struct ConvpcRows {
    ConvpcSource source;
    ConvpcOutput output;
    CONVPC_POINTER(const ConvpcNode) nodes;
    /** [matrix][output][input], of mix [feature][channel][repetition]; not read by gather. */
    CONVPC_POINTER(const float) linear;
    uint32_t row_tiles;
    /** Rows to compute; the last tile may have more. */
    uint32_t rows;
} ConvpcRows;

/** What random numbers are made from, besides node and use. */
typedef struct ConvpcRandom {
    uint64_t seed;
    /** The number of the batch's first row. */
    uint64_t first_row;
} ConvpcRandom;

/** Where a row's repetition is read, where the tables that it goes by depend on it. */
typedef struct ConvpcMixture {
    /** The place of the choice between repetitions; CONVPC_NO_PLACE: all rows go by the first tables. */
    uint32_t place;
    /** Channels of the mixture. */
    uint32_t channels;
} ConvpcMixture;

/** A sum node on the way down. */
typedef struct ConvpcBranch {
    /** Where its choice is written. */
    uint32_t place;
    /** The place of the choice that leads to it, or CONVPC_NO_PLACE. */
    uint32_t from;
    /** Which weights: one matrix a group and repetition. */
    uint32_t group;
    /** Where the node's inputs begin in the source's list. */
    uint32_t first;
    /** How many they are. */
    uint32_t count;
    /** Its number in the counter of random numbers. */
    uint32_t number;
} ConvpcBranch;

/** choose_*: a thread takes one row through one node, from its output to the edge chosen. */
typedef struct ConvpcChoose {
    /** What the way up left; not read by choose_prior. */
    ConvpcSource source;
    ConvpcRandom random;
    ConvpcMixture mixture;
    /** [repetition of the mixture][node] */
    CONVPC_POINTER(const ConvpcBranch) nodes;
    /** [matrix][output][input], of a mixture [feature][channel][repetition] */
    CONVPC_POINTER(const float) linear;
    /** [place][row]: repetition * channels + channel of a node's inputs, which are the outputs of the layer below. */
    CONVPC_POINTER(uint32_t) choices;
    /** Columns of a matrix: the edges of an output. */
    uint32_t inputs;
    /** Rows of a matrix: channels. */
    uint32_t outputs;
    /** Repetitions with weights of their own. */
    uint32_t repetitions;
    /** Whether the edges lead to repetitions, not to channels. */
    uint32_t mixes;
    uint32_t node_count;
    uint32_t row_tiles;
    /** Rows to take down. */
    uint32_t rows;
    /** Rows of `choices`. */
    uint32_t stride;
} ConvpcChoose;

/** draw, fill_modes: leaves fill in what is missing. */
typedef struct ConvpcDraw {
    ConvpcRandom random;
    ConvpcMixture mixture;
    /** The family's own, [leaf row][repetition][channel][parameter]. */
    CONVPC_POINTER(const double) parameters;
    /** As in ConvpcSource. */
    CONVPC_POINTER(const uint32_t) leaf_rows;
    /** Binomial: the logarithm of the base measure of each value. */
    CONVPC_POINTER(const double) base;
    /** [column][row], NaN = missing; null: all is missing. */
    CONVPC_POINTER(const float) data;
    /** [place][row] */
    CONVPC_POINTER(const uint32_t) choices;
    /** [repetition of the mixture][column]: the place of the choice that leads to its leaves, or CONVPC_NO_PLACE. */
    CONVPC_POINTER(const uint32_t) from;
    /** [row][column] */
    CONVPC_POINTER(float) to;
    /** CONVPC_FAMILY_... */
    uint32_t family;
    /** Parameters of one leaf. */
    uint32_t size;
    /** Values of a discrete variable. */
    uint32_t values;
    uint32_t channels;
    uint32_t repetitions;
    uint32_t columns;
    /** Rows to complete. */
    uint32_t rows;
    /** Rows of `data` and `choices`. */
    uint32_t stride;
} ConvpcDraw;
/** flow_*, unmix: from the flow out of the sums of a layer to the flow into their inputs. */
typedef struct ConvpcDown {
    /** What the sums read on the way up. */
    ConvpcSource source;
    /** What they left there. */
    ConvpcOutput sums;
    /** The flow into the inputs of the layer above, [repetition][flow_features][channel][row]. */
    CONVPC_POINTER(const float) flow;
    /** [repetition][feature]: for each feature of the sums that of `flow` which is theirs. */
    CONVPC_POINTER(const uint32_t) parents;
    /** The result, [repetition][feature][input channel][row]. */
    CONVPC_POINTER(float) below;
    /** Nodes whose inputs are ranges of the source's list, by matrix. */
    CONVPC_POINTER(const ConvpcNode) nodes;
    /** [matrix][output][input], of unmix [feature][channel][repetition] */
    CONVPC_POINTER(const float) linear;
    /** One number, above 0 and at most 1: the power that posteriors over repetitions are taken to; read by unmix. */
    CONVPC_POINTER(const float) inverse_temperature;
    /** Transposed weights as fragments; not read by unmix. */
    CONVPC_POINTER(const uint32_t) transposed;
    uint32_t flow_features;
    uint32_t row_tiles;
    /** Rows to compute. */
    uint32_t rows;
    /** Outputs for which the operand in shared memory has room, whole steps; not read by unmix. */
    uint32_t at_a_time;
} ConvpcDown;

/** root_flow: where the way down begins. */
typedef struct ConvpcRootFlow {
    /** [row] */
    CONVPC_POINTER(const float) values;
    /** [row] */
    CONVPC_POINTER(const double) offsets;
    /** [row] */
    CONVPC_POINTER(float) flow;
    /** Rows of the batch. */
    uint32_t given;
    /** Rows to write. */
    uint32_t rows;
} ConvpcRootFlow;

/** label_flow: where the way down of rows whose class is known begins, and the joint log-likelihood of row and class. */
typedef struct ConvpcLabelFlow {
    /** [class][stride], the heads' */
    CONVPC_POINTER(const float) values;
    /** [row], the heads' */
    CONVPC_POINTER(const double) offsets;
    /** [class] */
    CONVPC_POINTER(const float) prior;
    /** [row] */
    CONVPC_POINTER(const uint32_t) labels;
    /** [row], in place of the root's. */
    CONVPC_POINTER(float) joint;
    /** [row], in place of the root's. */
    CONVPC_POINTER(double) joint_offsets;
    /** [class][stride], into the root's inputs. */
    CONVPC_POINTER(float) flow;
    uint32_t classes;
    /** Rows of the batch. */
    uint32_t given;
    /** Rows to write. */
    uint32_t rows;
    /** Distance between classes. */
    uint32_t stride;
} ConvpcLabelFlow;

/** counts_*: the expected counts of a layer's edges. */
typedef struct ConvpcCounts {
    /** `below` and `transposed` are not read. */
    ConvpcDown down;
    /** The result, [part][matrix][output][input]. */
    CONVPC_POINTER(float) partial;
    /** Where the nodes of each matrix begin, and where the last end: [matrices + 1]. */
    CONVPC_POINTER(const uint32_t) begins;
    uint32_t matrices;
    /** Parts into which the rows and nodes of a matrix are divided. */
    uint32_t parts;
} ConvpcCounts;

/** add_parts: what the parts of a batch found goes to the statistics. */
typedef struct ConvpcAddParts {
    /** [part][count] */
    CONVPC_POINTER(const float) partial;
    /** [count] */
    CONVPC_POINTER(double) total;
    uint64_t count;
    uint32_t parts;
} ConvpcAddParts;

/** add_rows: the counts of mixtures of repetitions. */
typedef struct ConvpcAddRows {
    /** [repetition][feature][channel][stride] */
    CONVPC_POINTER(const float) flow;
    /** [feature][channel][repetition] */
    CONVPC_POINTER(double) total;
    uint32_t features;
    uint32_t channels;
    uint32_t repetitions;
    /** Rows to add. */
    uint32_t rows;
    /** Distance between channels. */
    uint32_t stride;
} ConvpcAddRows;

/** transpose: data come as [row][column] and are read as [column][row]. */
typedef struct ConvpcTranspose {
    /** [given][columns] */
    CONVPC_POINTER(const float) from;
    /** [columns][rows] */
    CONVPC_POINTER(float) to;
    uint32_t columns;
    /** Rows that there are. */
    uint32_t given;
    /** Rows to write; those beyond `given` become NaN. */
    uint32_t rows;
} ConvpcTranspose;

/** pack_*: linear weights, or their transposes, become fragments. */
typedef struct ConvpcPack {
    /** One matrix after the other. */
    CONVPC_POINTER(const float) linear;
    CONVPC_POINTER(uint32_t) packed;
    uint32_t matrices;
    /** Outputs of the fragments. */
    uint32_t outputs;
    /** Inputs of the fragments. */
    uint32_t inputs;
    /** How far outputs are from each other in `linear`. */
    uint32_t output_stride;
    /** How far inputs are from each other in `linear`. */
    uint32_t input_stride;
} ConvpcPack;

/** count_*: a batch's leaf statistics are added to the totals. */
typedef struct ConvpcLeafCounts {
    /** [repetition][feature][channel][row]: the flow into the inputs of the lowest sum. */
    CONVPC_POINTER(const float) flow;
    /** [column][row], NaN = missing. */
    CONVPC_POINTER(const float) data;
    /** [repetition][column]: the feature whose flow its leaves get, or CONVPC_NO_FEATURE. */
    CONVPC_POINTER(const uint32_t) parents;
    /** [leaf row][repetition][channel][2], mean and std; read by count_location_scale. */
    CONVPC_POINTER(const double) theta;
    /** [leaf row][repetition][channel][4], as in ConvpcSource; read by count_location_scale. */
    CONVPC_POINTER(const float) leaves;
    /** As in ConvpcSource. */
    CONVPC_POINTER(const uint32_t) leaf_rows;
    /** [value][statistics + 1]; read by count_natural. */
    CONVPC_POINTER(const float) sufficient;
    /** [column][repetition][channel][1 + statistics] */
    CONVPC_POINTER(double) counts;
    /** Features of `flow`. */
    uint32_t features;
    uint32_t channels;
    uint32_t repetitions;
    uint32_t columns;
    /** Rows of the batch, filled up. */
    uint32_t stride;
    /** Rows whose flow was computed. */
    uint32_t rows;
    uint32_t statistics;
    /** count_table: channels that a block takes, a power of two of at most 32. */
    uint32_t width;
    /** count_table: values that a block takes, and how many such ranges there are. */
    uint32_t values;
    uint32_t ranges;
} ConvpcLeafCounts;

/** fold_leaves: what columns that share leaves have counted comes together, and they begin again. */
typedef struct ConvpcFoldLeaves {
    /** [column][value] */
    CONVPC_POINTER(double) from;
    /** [leaf row][value], added to. */
    CONVPC_POINTER(double) to;
    /** [column]: its row of `to`. */
    CONVPC_POINTER(const uint32_t) leaf_rows;
    /** Values of a row. */
    uint64_t values;
    uint32_t rows;
    uint32_t columns;
} ConvpcFoldLeaves;

/** top_down: from the top-down probabilities of the sums of a layer to those of their inputs; a block a feature and
 *  repetition. */
typedef struct ConvpcTopDown {
    /** [repetition][above_features][output]: those of the inputs of the layer above; null: the root's, which is 1. */
    CONVPC_POINTER(const double) above;
    /** [repetition][feature]: its feature in `above`, or CONVPC_NO_FEATURE. */
    CONVPC_POINTER(const uint32_t) parents;
    /** [feature]: which weights. */
    CONVPC_POINTER(const uint32_t) groups;
    /** [group][repetition][output][input] */
    CONVPC_POINTER(const float) linear;
    /** [input repetition][feature][input channel] */
    CONVPC_POINTER(double) below;
    uint32_t features;
    uint32_t above_features;
    uint32_t outputs;
    uint32_t inputs;
    /** Of the outputs. */
    uint32_t repetitions;
    /** Whether the inputs are repetitions. */
    uint32_t mixes;
} ConvpcTopDown;

/** pool_top_down: top-down probabilities of distributions that several places share are added up. */
typedef struct ConvpcPoolTopDown {
    /** [repetition][above_features][channel]; null: all are 1. */
    CONVPC_POINTER(const double) above;
    /** [repetition][place]: its feature in `above`, or CONVPC_NO_FEATURE. */
    CONVPC_POINTER(const uint32_t) parents;
    /** [place]: its row; null: place and row are one. */
    CONVPC_POINTER(const uint32_t) rows_of;
    /** [row][repetition][channel] */
    CONVPC_POINTER(double) to;
    uint32_t places;
    uint32_t above_features;
    uint32_t rows;
    uint32_t repetitions;
    uint32_t channels;
} ConvpcPoolTopDown;

/** How a step's counts, and what was there before, become one. */
typedef struct ConvpcBlend {
    /** Of each distribution its top-down probability; null: what was there before has no part (the exact step). */
    CONVPC_POINTER(const double) used;
    /** What a count is multiplied with. */
    double counts;
    /** What the expected count of what was there before is multiplied with. */
    double expected;
    /** CONVPC_BLEND_PARAMETERS: the share of the new parameters. */
    double step;
    /** CONVPC_BLEND_... */
    uint32_t kind;
} ConvpcBlend;

/** Counts with expected counts. */
#define CONVPC_BLEND_COUNTS 0
/** Parameters with parameters. */
#define CONVPC_BLEND_PARAMETERS 1

/** A step of Adam: the rule's numbers, and what it remembers of one tensor of parameters. */
typedef struct ConvpcAscent {
    /** [parameter], the running mean of the gradient. */
    CONVPC_POINTER(double) first;
    /** [parameter], that of its square. */
    CONVPC_POINTER(double) second;
    /** [distribution], written in the place of a step: the sum of the gradient's squares, before it is scaled; null: a step. */
    CONVPC_POINTER(double) squares;
    /** The sum of the squares of all parameters; null: the gradient is not clipped. */
    CONVPC_POINTER(const double) all_squares;
    /** Becomes 1 where a step left the legal parameters. The distribution stays, its first count becomes NaN. */
    CONVPC_POINTER(uint32_t) astray;
    /** What a count is multiplied with. */
    double scale;
    /** The largest norm of the scaled gradient. */
    double clip;
    double beta1;
    double beta2;
    /** What the running means are too small by. */
    double bias1;
    double bias2;
    double epsilon;
    double step;
    /** What logits are multiplied with. */
    double keep;
} ConvpcAscent;

/** add_squares: one block. */
typedef struct ConvpcSquares {
    CONVPC_POINTER(const double) squares;
    CONVPC_POINTER(double) sum;
    uint64_t count;
} ConvpcSquares;

/** average_counts: a thread takes a count. */
typedef struct ConvpcAverage {
    /** [count], replaced by the running mean. */
    CONVPC_POINTER(double) counts;
    /** [count], the running mean of the counts of a row. */
    CONVPC_POINTER(double) running;
    uint64_t count;
    /** How much of what was there before stays. */
    double momentum;
    /** Rows that the counts come from. */
    double rows;
} ConvpcAverage;

/** step_weights, ascend_weights, gradient_weights: a warp takes a row of a sum layer's matrices. */
typedef struct ConvpcWeightUpdate {
    /** [row][input]; ascend_weights leaves something else there. */
    CONVPC_POINTER(double) counts;
    /** [row][input], written by step_weights and ascend_weights. */
    CONVPC_POINTER(float) linear;
    /** [row][input], written by gradient_weights. */
    CONVPC_POINTER(double) gradient;
    ConvpcBlend blend;
    ConvpcAscent ascent;
    /** Matrices times outputs. */
    uint64_t rows;
    double pseudocount;
    uint32_t inputs;
} ConvpcWeightUpdate;

/** lay_location_scale: what the other kernels read of Normal leaves, from their parameters. */
typedef struct ConvpcLayLeaves {
    /** [place][channel][2], mean and std. */
    CONVPC_POINTER(const double) theta;
    /** [place][channel][4], as in ConvpcSource. */
    CONVPC_POINTER(float) leaves;
    /** [place][channel][3], as in ConvpcSource. */
    CONVPC_POINTER(double) exact;
    /** Leaf rows times repetitions. */
    uint32_t places;
    uint32_t channels;
} ConvpcLayLeaves;

/** step_*, ascend_* and gradient_* of the leaf families. */
typedef struct ConvpcLeafUpdate {
    /** [leaf][1 + statistics]; ascend_* leave something else there. */
    CONVPC_POINTER(double) counts;
    /** Normal: [leaf][1 + statistics], running means that are brought to the new parameters; null: there are none. */
    CONVPC_POINTER(double) running;
    /** [leaf][parameters], written by the steps. */
    CONVPC_POINTER(double) theta;
    /** [leaf][leaf_stride], written by the steps; those of Normal leaves by lay_location_scale. */
    CONVPC_POINTER(float) leaves;
    /** Discretized logistic: [leaf][value], written by the steps. */
    CONVPC_POINTER(double) probabilities;
    /** [leaf][parameters], written by the gradients. */
    CONVPC_POINTER(double) gradient;
    /** Binomial: [value], the logarithm of the base measure. */
    CONVPC_POINTER(const double) log_base;
    ConvpcBlend blend;
    ConvpcAscent ascent;
    uint64_t leaf_count;
    double pseudocount;
    double minimum_std;
    /** Binomial: trials. */
    uint32_t trials;
    /** Table, discretized logistic: values. */
    uint32_t values;
    /** Normal: whether variances are multiplied by n / (n - 1). */
    uint32_t bias_correction;
} ConvpcLeafUpdate;

#endif
