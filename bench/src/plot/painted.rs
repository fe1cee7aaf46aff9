//! What came of painting a picture.

use plotters::prelude::DrawingAreaErrorKind;

pub(super) type Painted = std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;

pub(super) fn fault<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> String {
    error.to_string()
}
