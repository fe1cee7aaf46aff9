//! JSON text for a `json` or `jsonb` column, without parsing it first.

use std::error::Error;
use std::fmt::Debug;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// Version byte of the binary form of `jsonb`.
const JSONB_VERSION: u8 = 1;

#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: AsRef<str> + Debug> ToSql for Json<T> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        if *ty == Type::JSONB {
            out.extend_from_slice(&[JSONB_VERSION]);
        }
        out.extend_from_slice(self.0.as_ref().as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB || *ty == Type::JSON
    }

    to_sql_checked!();
}
