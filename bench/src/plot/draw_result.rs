//! Result of drawing a plot.

use plotters::prelude::DrawingAreaErrorKind;

pub(super) type DrawResult = std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;

pub(super) fn draw_error<E: std::error::Error + Send + Sync>(
    error: DrawingAreaErrorKind<E>,
) -> String {
    error.to_string()
}
