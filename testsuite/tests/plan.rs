//! Plans need no device: what they say is compared with the circuit's own structure.

use std::{collections::HashMap, sync::Arc};

use convpc_core::{ConvPc, Family, Layer, Precision, Scope, Semiring, Structure, WeightMatrices};
use convpc_cuda::{Descents, Flow, Input, Kernel, Limits, Plan, Purpose, Tile};
use testsuite::circuits;

const H100: Limits = Limits { multiprocessors: 132, shared_memory: 227 * 1024 };

fn structures() -> Vec<Arc<Structure>> {
    let base = |height, width| ConvPc::new(height, width, 1, Family::normal());
    let more = [
        base(28, 28).channels(64),
        base(27, 14).channels(20).depth(3).use_sum_conv(true).repetitions(3),
        base(9, 9).channels(300).kernel_size(3).depth(2),
        base(2, 2).channels(3).depth(1),
    ];
    let more = more.map(|convpc| Arc::new(convpc.structure().unwrap()));
    circuits::all().iter().map(|circuit| circuit.structure().clone()).chain(more).collect()
}

const PURPOSES: [Purpose; 5] = [
    Purpose::Root,
    Purpose::EveryLayer(Semiring::SumProduct),
    Purpose::Tape(Semiring::SumProduct),
    Purpose::Tape(Semiring::MaxProduct),
    Purpose::Learn,
];

fn sums_and_root(structure: &Structure) -> Vec<usize> {
    let layers = structure.layers();
    let kept = |l: &usize| *l + 1 == layers.len() || !matches!(layers[*l], Layer::ProdConv(_) | Layer::Leaf(_));
    (0..layers.len()).filter(kept).collect()
}

/// Layer, repetition and feature.
type Place = (usize, u32, u32);

/// The scope of every output feature of each repetition as the launches wire it.
fn scopes(plan: &Plan, structure: &Structure) -> HashMap<Place, Vec<usize>> {
    let mut of: HashMap<Place, Vec<usize>> = HashMap::new();
    for launch in &plan.launches {
        let read = |repetition: u32, first: u32, count: u32, of: &HashMap<Place, Vec<usize>>| -> Vec<usize> {
            let list = &launch.list[first as usize..(first + count) as usize];
            let of_one = |i: &u32| match launch.input {
                Input::Data => vec![structure.columns()[*i as usize].variable],
                Input::Layer(layer) => of[&(layer, repetition, *i)].clone(),
            };
            list.iter().flat_map(of_one).collect()
        };
        for node in launch.nodes.iter().filter(|node| node.feature != u32::MAX) {
            let scope = match launch.kernel {
                Kernel::Fused(..) => {
                    // As the kernel runs them: an accumulator for each level but the last.
                    let mut accumulated: Vec<Vec<usize>> = vec![vec![]; launch.levels.len()];
                    for step in &launch.steps[node.first as usize..(node.first + node.count) as usize] {
                        let level = step.level as usize;
                        let scope = match level {
                            0 => read(node.repetition, step.first, step.count, &of),
                            _ => accumulated[level - 1].clone(),
                        };
                        if step.fresh == 1 {
                            accumulated[level].clear();
                        }
                        accumulated[level].extend(scope);
                    }
                    accumulated.pop().unwrap()
                }
                _ => read(node.repetition, node.first, node.count, &of),
            };
            of.insert((launch.output, node.repetition, node.feature), scope);
        }
    }
    of
}

#[test]
fn launches_wire_every_feature_to_its_scope() {
    let small = Limits { multiprocessors: 1, shared_memory: 40 * 1024 };
    for structure in structures() {
        let root = structure.layers().len() - 1;
        for rows in [1, 3, 20, 100, 5000] {
            for precision in Precision::ALL {
                for limits in [H100, small] {
                    for purpose in PURPOSES {
                        let plan = Plan::new(&structure, rows, purpose, precision, limits);
                        let of = scopes(&plan, &structure);
                        assert!(of.contains_key(&(root, 0, 0)), "{plan}");
                        for ((layer, repetition, feature), mut scope) in of {
                            let count = scope.len();
                            scope.sort_unstable();
                            scope.dedup();
                            assert_eq!(count, scope.len(), "a variable twice: {plan}");
                            let expected = structure.scope(layer, feature as usize, repetition as usize);
                            assert_eq!(scope.into_iter().collect::<Scope>(), expected, "{plan}");
                        }
                        let outputs = plan.launches.iter().map(|launch| launch.output).collect::<Vec<_>>();
                        match purpose {
                            Purpose::Root => assert!(outputs.is_sorted()),
                            Purpose::EveryLayer(_) => assert_eq!(outputs, (0..=root).collect::<Vec<_>>()),
                            Purpose::Tape(_) | Purpose::Learn | Purpose::LearnLabeled => {
                                assert_eq!(outputs, sums_and_root(&structure))
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_launch_fits_its_device() {
    for structure in structures() {
        for rows in [1, 64, 4096] {
            for shared_memory in [48 * 1024, 99 * 1024, 227 * 1024] {
                let limits = Limits { multiprocessors: 108, shared_memory };
                for launch in Plan::new(&structure, rows, Purpose::Root, Precision::F32, limits).launches {
                    assert!(launch.shared_bytes() <= shared_memory, "{launch:?}");
                    assert!(launch.blocks(rows) > 0);
                    // Tensor cores never get a layer of which most of a tile would be empty.
                    let few = launch.levels.iter().any(|level| level.outputs <= 8);
                    assert!(!few || !matches!(launch.kernel, Kernel::Fused(..)));
                }
            }
        }
    }
}

#[test]
fn every_sum_is_computed_once() {
    for structure in structures() {
        let plan = Plan::new(&structure, 4096, Purpose::Root, Precision::Bf16, H100);
        let computed: Vec<usize> =
            plan.launches.iter().flat_map(|l| l.levels.iter().map(|level| level.layer)).collect();
        let layers = structure.layers();
        let sums: Vec<usize> = (1..layers.len()).filter(|&l| !matches!(layers[l], Layer::ProdConv(_))).collect();
        assert_eq!(computed, sums);
    }
}

#[test]
fn plans_of_28_by_28_pixels_with_64_channels() {
    let structure = ConvPc::new(28, 28, 1, Family::normal()).channels(64).structure().unwrap();
    let plan = |rows, precision| Plan::new(&structure, rows, Purpose::Root, precision, H100).to_string();
    insta::assert_snapshot!(plan(4096, Precision::F32), @r"
    4096 rows, 4 launches
    lse_fused_f32_base         data → layer 6   3 sum level(s), 64 node(s), 4096 block(s), 57088 bytes shared
    lse_fused_f32_base      layer 6 → layer 8   1 sum level(s), 16 node(s), 1024 block(s), 19200 bytes shared
    lse_fused_f32_base      layer 8 → layer 10  1 sum level(s), 4 node(s), 256 block(s), 19200 bytes shared
    lse_rows               layer 10 → layer 12  1 sum level(s), 1 node(s), 32 block(s), 0 bytes shared
    ");
    insta::assert_snapshot!(plan(1, Precision::F32), @r"
    16 rows, 6 launches
    lse_fused_f32_slim         data → layer 2   1 sum level(s), 784 node(s), 784 block(s), 6720 bytes shared
    lse_fused_f32_slim      layer 2 → layer 4   1 sum level(s), 196 node(s), 196 block(s), 6720 bytes shared
    lse_fused_f32_slim      layer 4 → layer 6   1 sum level(s), 64 node(s), 64 block(s), 6720 bytes shared
    lse_fused_f32_slim      layer 6 → layer 8   1 sum level(s), 16 node(s), 16 block(s), 6720 bytes shared
    lse_fused_f32_slim      layer 8 → layer 10  1 sum level(s), 4 node(s), 4 block(s), 6720 bytes shared
    lse_rows               layer 10 → layer 12  1 sum level(s), 1 node(s), 1 block(s), 0 bytes shared
    ");
    let wide = ConvPc::new(28, 28, 1, Family::normal()).channels(512).structure().unwrap();
    let plan = Plan::new(&wide, 4096, Purpose::Root, Precision::Bf16, H100);
    assert_eq!(plan.launches[0].kernel, Kernel::Fused(Precision::Bf16, Tile::Wide));
    insta::assert_snapshot!(plan.to_string(), @r"
    4096 rows, 6 launches
    lse_fused_bf16_wide        data → layer 2   1 sum level(s), 784 node(s), 25088 block(s), 141824 bytes shared
    lse_fused_bf16_wide     layer 2 → layer 4   1 sum level(s), 196 node(s), 6272 block(s), 141824 bytes shared
    lse_fused_bf16_wide     layer 4 → layer 6   1 sum level(s), 64 node(s), 2048 block(s), 141824 bytes shared
    lse_fused_bf16_wide     layer 6 → layer 8   1 sum level(s), 16 node(s), 512 block(s), 141824 bytes shared
    lse_fused_bf16_wide     layer 8 → layer 10  1 sum level(s), 4 node(s), 128 block(s), 141824 bytes shared
    lse_rows               layer 10 → layer 12  1 sum level(s), 1 node(s), 32 block(s), 0 bytes shared
    ");
}

/// With shared weights one row of all patches fills the tiles that with weights of their own would be empty but for a row.
#[test]
fn patches_that_share_weights_are_folded() {
    let structure = ConvPc::new(28, 28, 1, Family::normal()).channels(64).use_sum_conv(true).structure().unwrap();
    for rows in [1, 3, 8] {
        let plan = Plan::new(&structure, rows, Purpose::Root, Precision::F32, H100);
        assert_eq!(plan.rows, rows.next_power_of_two());
        let first = &plan.launches[0];
        assert_eq!((first.kernel, first.fold * plan.rows), (Kernel::Fused(Precision::F32, Tile::Fold), 16));
        // 196 patches for each of four kernel positions.
        assert_eq!(first.blocks(rows), 4 * 196_usize.div_ceil(first.fold));
        let matrices = WeightMatrices::new(&structure, first.output).unwrap();
        for block in first.nodes.chunks(first.fold) {
            let there = block.iter().filter(|n| n.feature != u32::MAX);
            let mut used = there.map(|n| (matrices.group(n.feature as usize), n.repetition));
            let first = used.next().unwrap();
            assert!(used.all(|matrix| matrix == first), "a block has the weights of one kernel position");
        }
    }
    assert_eq!(Plan::new(&structure, 9, Purpose::Root, Precision::F32, H100).launches[0].fold, 1);
}

fn descents(structure: &Structure, rows: usize, precision: Precision, limits: Limits) -> Descents {
    Descents::new(structure, &Plan::new(structure, rows, Purpose::Learn, precision, limits), precision, limits)
}

/// The nearest node above a feature of a repetition that is a sum's, if there is one.
fn sum_above(structure: &Structure, layer: usize, feature: usize, repetition: usize) -> Option<usize> {
    let above = layer + 1;
    let kind = structure.layers().get(above)?;
    let mut features = 0..structure.shape(above).features();
    // Above a mixture there is one.
    let of_parent = repetition.min(structure.shape(above).repetitions - 1);
    let parent = features.find(|&f| structure.children(above, f, of_parent).any(|child| child == feature))?;
    if matches!(kind, Layer::ProdConv(_)) { sum_above(structure, above, parent, of_parent) } else { Some(parent) }
}

#[test]
fn the_way_down_passes_every_sum_once_and_knows_its_parents() {
    let small = Limits { multiprocessors: 1, shared_memory: 12 * 1024 };
    for structure in structures() {
        let mut sums = sums_and_root(&structure);
        sums.retain(|&layer| structure.layers()[layer].normalized_axis().is_some());
        for (rows, limits) in [(1, H100), (20, small), (100, H100), (5000, small)] {
            let down = descents(&structure, rows, Precision::F32, limits);
            let layers: Vec<usize> = down.layers.iter().rev().map(|descent| descent.layer).collect();
            assert_eq!(layers, sums);
            for descent in &down.layers {
                let matrices = &descent.matrices;
                let shape = structure.shape(descent.layer);
                let occupied =
                    (0..shape.repetitions).flat_map(|r| structure.occupied(descent.layer, r).map(move |f| (r, f)));
                let mut seen: Vec<_> =
                    descent.nodes.iter().map(|n| (n.repetition as usize, n.feature as usize)).collect();
                for (matrix, ends) in descent.begins.windows(2).enumerate() {
                    let nodes = &descent.nodes[ends[0] as usize..ends[1] as usize];
                    for node in nodes {
                        let group = matrices.group(node.feature as usize);
                        assert_eq!(group * matrices.repetitions + node.repetition as usize, matrix);
                    }
                }
                for &(repetition, feature) in &seen {
                    let parent = sum_above(&structure, descent.layer, feature, repetition).unwrap_or(0);
                    let given = descent.parents[repetition * shape.features() + feature];
                    assert_eq!(given as usize, parent, "layer {}", descent.layer);
                }
                seen.sort_unstable();
                assert!(seen.into_iter().eq(occupied));
                assert!(descent.shared_bytes() <= limits.shared_memory, "{down}");
                if let Flow::Product(..) = descent.flow {
                    // Every output is staged, a whole number of steps at a time; every part has something to add.
                    assert!(descent.at_a_time.is_multiple_of(16) && descent.at_a_time > 0);
                    let largest = descent.begins.windows(2).map(|g| g[1] - g[0]).max().unwrap() as usize;
                    assert!(descent.parts <= largest * down.rows.div_ceil(16));
                }
            }
        }
    }
}

#[test]
fn the_way_down_of_28_by_28_pixels_with_64_channels() {
    let structure = ConvPc::new(28, 28, 1, Family::normal()).channels(64).structure().unwrap();
    insta::assert_snapshot!(descents(&structure, 4096, Precision::F32, H100), @r"
    4096 rows, 6 sum layers down
    flow_f32_base      layer 12  1 node(s), 64 block(s), 23040 bytes shared; counts in 64 part(s), 64 block(s)
    flow_f32_base      layer 10  4 node(s), 256 block(s), 36864 bytes shared; counts in 64 part(s), 256 block(s)
    flow_f32_base      layer 8   16 node(s), 1024 block(s), 36864 bytes shared; counts in 33 part(s), 528 block(s)
    flow_f32_base      layer 6   64 node(s), 4096 block(s), 36864 bytes shared; counts in 9 part(s), 576 block(s)
    flow_f32_base      layer 4   196 node(s), 12544 block(s), 36864 bytes shared; counts in 3 part(s), 768 block(s)
    flow_f32_base      layer 2   784 node(s), 50176 block(s), 36864 bytes shared; counts in 1 part(s), 1024 block(s)
    count_location_scale leaves    784 column(s), 12544 block(s), 0 bytes shared
    ");
    insta::assert_snapshot!(descents(&structure, 1, Precision::Bf16, H100), @r"
    16 rows, 6 sum layers down
    flow_bf16_slim     layer 12  1 node(s), 1 block(s), 6912 bytes shared; counts in 1 part(s), 1 block(s)
    flow_bf16_slim     layer 10  4 node(s), 4 block(s), 9216 bytes shared; counts in 1 part(s), 4 block(s)
    flow_bf16_slim     layer 8   16 node(s), 16 block(s), 9216 bytes shared; counts in 1 part(s), 16 block(s)
    flow_bf16_slim     layer 6   64 node(s), 64 block(s), 9216 bytes shared; counts in 1 part(s), 64 block(s)
    flow_bf16_slim     layer 4   196 node(s), 196 block(s), 9216 bytes shared; counts in 1 part(s), 256 block(s)
    flow_bf16_slim     layer 2   784 node(s), 784 block(s), 9216 bytes shared; counts in 1 part(s), 1024 block(s)
    count_location_scale leaves    784 column(s), 12544 block(s), 0 bytes shared
    ");
    let shared = ConvPc::new(28, 28, 1, Family::normal()).channels(64).use_sum_conv(true).structure().unwrap();
    insta::assert_snapshot!(descents(&shared, 4096, Precision::F32, H100), @r"
    4096 rows, 6 sum layers down
    flow_f32_base      layer 12  1 node(s), 64 block(s), 23040 bytes shared; counts in 64 part(s), 64 block(s)
    flow_f32_base      layer 10  4 node(s), 256 block(s), 36864 bytes shared; counts in 64 part(s), 256 block(s)
    flow_f32_base      layer 8   16 node(s), 1024 block(s), 36864 bytes shared; counts in 132 part(s), 528 block(s)
    flow_f32_base      layer 6   64 node(s), 4096 block(s), 36864 bytes shared; counts in 132 part(s), 528 block(s)
    flow_f32_base      layer 4   196 node(s), 12544 block(s), 36864 bytes shared; counts in 132 part(s), 528 block(s)
    flow_f32_base      layer 2   784 node(s), 50176 block(s), 36864 bytes shared; counts in 196 part(s), 784 block(s)
    count_location_scale leaves    784 column(s), 12544 block(s), 0 bytes shared
    ");
}
