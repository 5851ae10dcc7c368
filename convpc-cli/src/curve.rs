//! Learning curves, as pictures.

use std::{error::Error, path::Path, sync::OnceLock};

use convpc::{
    data::{DataError, ImageShape},
    picture::Picture,
};
use ndarray::Array2;
use plotters::{
    coord::Shift,
    prelude::*,
    style::{FontStyle, register_font},
};

use crate::{Outcome, failure::Usage, files};

/// Colors of the lines, one after another.
const COLORS: [RGBColor; 6] = [BLUE, RED, GREEN, MAGENTA, CYAN, BLACK];

/// Pixels of a picture: width, height.
const SIZE: (u32, u32) = (640, 400);

/// A line of a curve: points from left to right.
pub(crate) struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Line {
    /// Makes a line of the points that are finite.
    pub(crate) fn new(name: &str, points: impl Iterator<Item = (f64, f64)>) -> Self {
        Line { name: name.into(), points: points.filter(|(_, value)| value.is_finite()).collect() }
    }

    /// A value an epoch, from epochs that count from 0 and are drawn from 1 on.
    pub(crate) fn of_epochs(name: &str, values: impl Iterator<Item = (usize, f64)>) -> Self {
        Line::new(name, values.map(|(epoch, value)| ((epoch + 1) as f64, value)))
    }

    /// Whether it has no points.
    pub(crate) fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

/// An error unless [`draw`] can draw to this name: asked before long work.
pub(crate) fn check_name(name: &str, path: &Path) -> Result<(), Usage> {
    files::check_ending(name, path, &["png", "svg"])
}

/// Draws lines to a .png or a .svg file. The horizontal axis is named `over`, the vertical one `what`. Lines without points are left
/// out; if there are no others, nothing is drawn.
pub(crate) fn draw(path: &Path, (over, what): (&str, &str), lines: &[Line]) -> Outcome {
    if lines.iter().all(Line::is_empty) {
        return Ok(());
    }
    register_sans()?;
    if files::ends_in(path, &["svg"]) {
        let mut svg = String::new();
        chart(SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), (over, what), lines)?;
        let written = convpc::atomic::write(path, |file| file.write_all(svg.as_bytes()));
        return Ok(written.map_err(|source| DataError::Write { path: path.to_path_buf(), source })?);
    }
    let (width, height) = (SIZE.0 as usize, SIZE.1 as usize);
    let mut rgb = vec![0; width * height * 3];
    chart(BitMapBackend::with_buffer(&mut rgb, SIZE).into_drawing_area(), (over, what), lines)?;
    let pixels = Array2::from_shape_vec((1, rgb.len()), rgb.into_iter().map(f32::from).collect())?;
    Picture::grid(pixels.view(), ImageShape { height, width, colors: 3 }, (0.0, 255.0), 1, 1)?.write_png(path)?;
    Ok(())
}

/// Text is drawn in a font that is built in: no machine has to have one.
fn register_sans() -> Result<(), &'static str> {
    static DONE: OnceLock<bool> = OnceLock::new();
    let done = *DONE.get_or_init(|| register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular()).is_ok());
    if done { Ok(()) } else { Err("the font that is built in cannot be read; build convpc anew") }
}

/// The ends of an axis that has so many values on it, at least one. A single value still has room beside it.
///
/// # Errors
/// A message, if a value is too large for an axis to be divided into steps.
fn range(what: &str, values: impl Iterator<Item = f64> + Clone) -> Result<(f64, f64), String> {
    /// Far from the ends of float64, where the length of an axis is infinite.
    const MOST: f64 = 1e300;
    let (low, high) = (values.clone().fold(f64::MAX, f64::min), values.fold(f64::MIN, f64::max));
    if low < -MOST || high > MOST {
        return Err(format!(
            "the {what} go from {low:e} to {high:e}; a curve is drawn of numbers from -1e300 to 1e300"
        ));
    }
    // Numbers that are too close to each other have none between them to divide the axis at.
    let least = 1e-6 * low.abs().max(high.abs()).max(1e-6);
    Ok(if high - low > least { (low, high) } else { (low - least.max(0.5), high + least.max(0.5)) })
}

fn chart<B: DrawingBackend>(
    area: DrawingArea<B, Shift>,
    (over, what): (&str, &str),
    lines: &[Line],
) -> Result<(), Box<dyn Error>>
where
    B::ErrorType: 'static,
{
    let points = || lines.iter().flat_map(|line| &line.points);
    let (low, high) = range(what, points().map(|(_, value)| *value))?;
    let room = (high - low) / 20.0;
    let (first, last) = range(over, points().map(|(place, _)| *place))?;
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(first..last, low - room..high + room)?;
    chart.configure_mesh().x_desc(over).x_label_formatter(&f64::to_string).y_desc(what).draw()?;
    for (line, color) in lines.iter().zip(COLORS.into_iter().cycle()).filter(|(line, _)| !line.points.is_empty()) {
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    // A line of a single point is none.
    for (line, color) in lines.iter().zip(COLORS.into_iter().cycle()) {
        let dot = |point: &(f64, f64)| Circle::new(*point, 3, color.filled());
        chart.draw_series(line.points.iter().take(1).map(dot))?;
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_a_length_that_can_be_divided() {
        for values in [
            &[0.0, 1.0][..],
            &[3.0],
            &[-1e300, 1e300],
            &[1e300, 1e300],
            &[1e16, 1e16 + 2.0],
            &[0.0, f64::MIN_POSITIVE],
            &[1.0, 1.0 + f64::EPSILON],
        ] {
            let (low, high) = range("values", values.iter().copied()).unwrap();
            let step = (high - low) / 1000.0;
            assert!(step.is_finite() && low + step > low && high - step < high, "{values:?}: {low} to {high}");
            assert!(values.iter().all(|value| (low..=high).contains(value)), "{values:?}: {low} to {high}");
        }
        assert_eq!(range("values", [0.0, 1.0].into_iter()), Ok((0.0, 1.0)));
        let error = range("seconds", [-1e308, 1e308].into_iter()).unwrap_err();
        insta::assert_snapshot!(error, @"the seconds go from -1e308 to 1e308; a curve is drawn of numbers from -1e300 to 1e300");
    }

    #[test]
    fn curves_of_any_numbers_end() {
        let folder = tempfile::tempdir().unwrap();
        for (name, points) in [
            ("a.svg", [(0.0, 1e300), (1.0, -1e300)]),
            ("b.png", [(1e300, 1.0), (-1e300, 1.0)]),
            ("c.svg", [(1e17, 1e17), (1e17 + 16.0, 1e17 + 16.0)]),
        ] {
            draw(&folder.path().join(name), ("seconds", "bits"), &[Line::new("x", points.into_iter())]).unwrap();
        }
        let far = [Line::new("x", [(0.0, 1e308), (1.0, -1e308)].into_iter())];
        assert!(draw(&folder.path().join("d.svg"), ("seconds", "bits"), &far).is_err());
    }
}
