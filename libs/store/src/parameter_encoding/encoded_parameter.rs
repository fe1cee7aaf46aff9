//! Statement parameters that are encoded in advance.

use std::error::Error;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type};

/// A parameter that was encoded before its statement runs; running the statement only copies it.
#[derive(Debug)]
pub(crate) struct Encoded {
    ty: Type,
    /// `None` for null.
    bytes: Option<BytesMut>,
}

impl Encoded {
    /// Encodes a value of this type.
    ///
    /// # Errors
    /// When the value has another type, or is too large for it.
    pub(crate) fn of(value: &dyn ToSql, ty: Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let mut bytes = BytesMut::new();
        let bytes = match value.to_sql_checked(&ty, &mut bytes)? {
            IsNull::Yes => None,
            IsNull::No => Some(bytes),
        };
        Ok(Self { ty, bytes })
    }
}

impl ToSql for Encoded {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        if *ty != self.ty {
            return Err(format!("a parameter of type {} was encoded as {}", ty, self.ty).into());
        }
        let Some(bytes) = &self.bytes else {
            return Ok(IsNull::Yes);
        };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    /// Accepts every type, because the type is a property of the value.
    fn accepts(_ty: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(ty, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_parameter_equals_the_direct_encoding() {
        let values = vec![Some("a"), None];
        let encoded = Encoded::of(&values, Type::TEXT_ARRAY).unwrap();
        let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
        encoded
            .to_sql_checked(&Type::TEXT_ARRAY, &mut ours)
            .unwrap();
        values
            .to_sql_checked(&Type::TEXT_ARRAY, &mut theirs)
            .unwrap();
        assert_eq!(ours, theirs);
        let null = Encoded::of(&None::<i64>, Type::INT8).unwrap();
        assert!(matches!(
            null.to_sql_checked(&Type::INT8, &mut ours),
            Ok(IsNull::Yes)
        ));
    }

    #[test]
    fn a_parameter_of_another_type_is_rejected() {
        let encoded = Encoded::of(&7_i64, Type::INT8).unwrap();
        let error = encoded.to_sql_checked(&Type::INT4, &mut BytesMut::new());
        assert_eq!(
            error.err().unwrap().to_string(),
            "a parameter of type int4 was encoded as int8"
        );
        assert!(Encoded::of(&7_i64, Type::TEXT).is_err());
    }
}
