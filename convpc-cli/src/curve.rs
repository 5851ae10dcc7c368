//! Learning curves, as pictures.

use std::{error::Error, path::Path, sync::OnceLock};

use convpc::{data::ImageShape, picture::Picture};
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
    /// What is not finite is left out.
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

/// Draws lines to a .png or a .svg file, `over` what from left to right, `what` from bottom to top. Lines without points are left out; nothing is drawn without any.
pub(crate) fn draw(path: &Path, (over, what): (&str, &str), lines: &[Line]) -> Outcome {
    if lines.iter().all(Line::is_empty) {
        return Ok(());
    }
    register_sans()?;
    if files::ends_in(path, &["svg"]) {
        let mut svg = String::new();
        chart(SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), (over, what), lines)?;
        convpc::atomic::write(path, |file| file.write_all(svg.as_bytes()))?;
        return Ok(());
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

fn chart<B: DrawingBackend>(
    area: DrawingArea<B, Shift>,
    (over, what): (&str, &str),
    lines: &[Line],
) -> Result<(), Box<dyn Error>>
where
    B::ErrorType: 'static,
{
    let values = || lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
    let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
    // A single value, or a single epoch, still has room around it.
    let room = if high > low { (high - low) / 20.0 } else { 0.5 };
    let places = || lines.iter().flat_map(|line| &line.points).map(|(place, _)| *place);
    let (first, last) = (places().fold(f64::MAX, f64::min), places().fold(f64::MIN, f64::max));
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(first..last.max(first + 1.0), low - room..high + room)?;
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
