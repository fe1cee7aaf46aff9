//! Properties of the fold.
