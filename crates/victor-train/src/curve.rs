//! The loss curve as a picture.

use crate::{Metrics, TrainError};
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (960, 540);

/// Draws training loss, its running mean and the validation loss over the steps.
pub(crate) fn draw(path: &Path, entries: &[Metrics]) -> Result<(), TrainError> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut svg = String::new();
    draw_into(&mut svg, entries).map_err(|_| TrainError::Curve { path: path.into() })?;
    std::fs::write(path, svg).map_err(crate::error::file_error(path, "write the loss curve"))
}

type DrawError<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn draw_into<'a>(svg: &'a mut String, entries: &[Metrics]) -> Result<(), DrawError<'a>> {
    let loss: Vec<(f64, f64)> = entries.iter().map(|e| (e.step as f64, e.loss)).collect();
    let validation: Vec<(f64, f64)> = entries
        .iter()
        .filter_map(|e| Some((e.step as f64, e.validation_loss?)))
        .collect();
    let top = loss.iter().chain(&validation).map(|(_, loss)| *loss);
    let top = top.fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let last = loss.last().map_or(1.0, |(step, _)| *step);

    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..last, 0.0..top * 1.05)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("cross-entropy, nats a token")
        .draw()?;
    let (pale, dark, red) = (
        RGBColor(198, 216, 235),
        RGBColor(31, 96, 160),
        RGBColor(200, 60, 40),
    );
    chart.draw_series(LineSeries::new(loss.iter().copied(), pale))?;
    let mean = running_mean(&loss);
    chart
        .draw_series(LineSeries::new(mean, dark.stroke_width(2)))?
        .label("training (running mean)")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], dark.stroke_width(2)));
    if !validation.is_empty() {
        chart
            .draw_series(LineSeries::new(validation, red.stroke_width(2)))?
            .label("validation")
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], red.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(pale)
        .draw()?;
    root.present()
}

/// An exponential mean over about a fiftieth of the steps.
fn running_mean(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / (points.len() as f64 / 50.0).max(1.0);
    let mut mean = points.first().map_or(0.0, |(_, loss)| *loss);
    let step = |&(step, loss): &(f64, f64)| {
        mean = keep * mean + (1.0 - keep) * loss;
        (step, mean)
    };
    points.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_drawn() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("loss.svg");
        let entry = |step: usize| Metrics {
            step,
            loss: 3.0 / step as f64,
            lr: 1e-3,
            samples_per_s: 1.0,
            tokens_per_s: 1.0,
            grad_norm: 1.0,
            validation_loss: step.is_multiple_of(10).then_some(1.0),
        };
        let entries: Vec<Metrics> = (1..100).map(entry).collect();
        draw(&path, &entries).expect("drawn");
        let svg = std::fs::read_to_string(&path).expect("written");
        assert!(svg.contains("<svg") && svg.contains("validation"));
    }
}
