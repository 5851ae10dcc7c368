//! The values of nodes in a tile, `[panel][channel][width]`, and what they are relative to.

use std::{collections::BTreeMap, f64::consts::LN_2};

use crate::{
    memory::Aligned,
    simd::{
        Isa,
        ops::{Multiply, PRODUCT_EXPONENT, WideMultiply, Widen},
    },
};

/// What becomes of the values of a sum: a factor of the product above, or kept.
pub(crate) enum Above<'a, 'b> {
    Product(&'a mut Product<'b>),
    Sums(&'a mut Sums),
}

impl Above<'_, '_> {
    /// Takes the values of a panel, plain or (with exponents) wide.
    pub(crate) fn take(&mut self, isa: Isa, panel: usize, values: &[f32], exponents: Option<&[f32]>) {
        match self {
            Above::Product(product) => product.multiply(isa, panel, values, exponents),
            Above::Sums(sums) => {
                sums.values[panel * values.len()..][..values.len()].copy_from_slice(values);
                exponents.map(|k| sums.exponents.insert(panel, k.to_vec()));
            }
        }
    }

    /// What the logarithms of the values are relative to, nats a row; to be added to.
    pub(crate) fn offset(&mut self) -> &mut [f64] {
        match self {
            Above::Product(product) => &mut product.extra.offset,
            Above::Sums(sums) => &mut sums.offset,
        }
    }
}

/// The values of a sum: its channels' likelihoods are `values · 2^exponents · exp(offset)`.
#[derive(Debug)]
pub(crate) struct Sums {
    values: Vec<f32>,
    /// Of wide panels; the values are mantissas there.
    exponents: BTreeMap<usize, Vec<f32>>,
    offset: Vec<f64>,
    width: usize,
}

impl Sums {
    pub(crate) fn new(channels: usize, n: usize, width: usize) -> Self {
        Sums { values: vec![0.0; channels * n], exponents: BTreeMap::new(), offset: vec![0.0; n], width }
    }

    /// Hands them on as if they were just computed.
    pub(crate) fn give(&self, isa: Isa, above: &mut Above) {
        let panel_len = self.values.len() / self.offset.len() * self.width;
        for (panel, values) in self.values.chunks_exact(panel_len).enumerate() {
            above.take(isa, panel, values, self.exponents.get(&panel).map(Vec::as_slice));
        }
        add(above.offset(), &self.offset);
    }

    /// The log-likelihoods of a channel, nats.
    pub(crate) fn channel(&self, channel: usize) -> impl Iterator<Item = f64> {
        let width = self.width;
        let panel_len = self.values.len() / self.offset.len() * width;
        self.offset.iter().enumerate().map(move |(row, offset)| {
            let (panel, at) = (row / width, channel * width + row % width);
            let exponent = self.exponents.get(&panel).map_or(0.0, |k| k[at]);
            log(self.values[panel * panel_len + at], exponent) + offset
        })
    }
}

/// The logarithm of `value · 2^exponent`.
pub(crate) fn log(value: f32, exponent: f32) -> f64 {
    f64::from(value).ln() + f64::from(exponent) * LN_2
}

pub(crate) fn add(to: &mut [f64], from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
}

/// What a panel of a product holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Panel {
    /// No factor yet.
    Empty,
    /// Values times 2^[`PRODUCT_EXPONENT`].
    Plain,
    /// Mantissas; the exponents have the same summand.
    Wide,
}

/// What belongs to a product besides its values.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// As many as values; meaningful for wide panels.
    pub(crate) exponents: Aligned,
    pub(crate) panels: Vec<Panel>,
    /// Nats, a row each.
    pub(crate) offset: Vec<f64>,
}

impl Extra {
    /// For no factors yet.
    pub(crate) fn clear(&mut self, n: usize, width: usize) {
        self.panels.clear();
        self.panels.resize(n / width, Panel::Empty);
        self.offset.clear();
        self.offset.resize(n, 0.0);
    }
}

/// A product of sums, factor by factor.
pub(crate) struct Product<'a> {
    values: &'a mut [f32],
    extra: &'a mut Extra,
}

impl<'a> Product<'a> {
    /// A product without factors, for a tile of `n` rows.
    pub(crate) fn new(values: &'a mut [f32], extra: &'a mut Extra, n: usize, width: usize) -> Self {
        extra.clear(n, width);
        Product { values, extra }
    }

    fn multiply(&mut self, isa: Isa, panel: usize, factor: &[f32], factor_exponents: Option<&[f32]>) {
        let Extra { exponents, panels, .. } = &mut *self.extra;
        let (all, state) = (self.values.len(), &mut panels[panel]);
        let part = panel * factor.len()..(panel + 1) * factor.len();
        let p = &mut self.values[part.clone()];
        if *state != Panel::Wide && factor_exponents.is_none() {
            let far = isa.dispatch(Multiply { p, s: factor, first: *state == Panel::Empty });
            *state = Panel::Plain;
            if !far {
                return;
            }
        }
        let exponents = &mut exponents.at_least(all)[part];
        match (*state, factor_exponents) {
            (Panel::Plain, None) => isa.dispatch(Widen { values: p, exponents }),
            (Panel::Empty, Some(k)) => {
                p.copy_from_slice(factor);
                exponents.iter_mut().zip(k).for_each(|(to, k)| *to = k + PRODUCT_EXPONENT);
            }
            (before, _) => {
                if before == Panel::Plain {
                    isa.dispatch(Widen { values: p, exponents });
                }
                isa.dispatch(WideMultiply { p, exponents, s: factor, s_exponents: factor_exponents });
            }
        }
        *state = Panel::Wide;
    }

    /// The product of no factors is 1.
    pub(crate) fn finish(self) {
        let panel_len = self.values.len() / self.extra.panels.len();
        for (panel, values) in self.extra.panels.iter_mut().zip(self.values.chunks_exact_mut(panel_len)) {
            if *panel == Panel::Empty {
                values.fill(PRODUCT_EXPONENT.exp2());
                *panel = Panel::Plain;
            }
        }
    }
}
