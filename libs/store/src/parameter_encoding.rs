//! Encoding of statement parameters.

pub(crate) mod column_value;
pub(crate) mod encoded_parameter;
pub(crate) mod json_parameter;
pub mod nul_escape;
