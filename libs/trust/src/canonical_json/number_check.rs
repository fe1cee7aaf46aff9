//! Checks that numbers keep their value in the canonical form.

use super::error::NumberFault;

/// Checks one JSON number.
///
/// An integer is compared as a decimal with what the canonical form prints, however it is written
/// (`10`, `1e1`, `10.0`). A fraction may be rounded to the nearest double.
///
/// Source: RFC 8785, section 3.2.2.3; RFC 7493, section 2.2.
pub(super) fn check(literal: &str) -> Result<(), NumberFault> {
    // Fast path: almost every number of an artifact is a small integer.
    if literal.len() <= 15 && literal.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    let written = Decimal::parse(literal);
    if written.digits.is_empty() {
        return Ok(());
    }
    let value: f64 = literal.parse().map_err(|_| NumberFault::Overflow)?;
    if value.is_infinite() {
        return Err(NumberFault::Overflow);
    }
    if value == 0.0 {
        return Err(NumberFault::Underflow);
    }
    // `{:e}` prints the shortest digits that parse to this double, as ECMAScript does in another format.
    if written.is_integer() && written != Decimal::parse(&format!("{value:e}")) {
        return Err(NumberFault::Inexact);
    }
    Ok(())
}

/// `digits * 10^exponent` without leading or trailing zero digits; zero has no digits.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// Reads a valid JSON number.
    fn parse(literal: &str) -> Self {
        let (negative, rest) = match literal.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, literal),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let trimmed = all.trim_end_matches('0');
        let shift = length(&all) - length(trimmed) - length(fraction);
        Self {
            negative,
            digits: trimmed.trim_start_matches('0').to_owned(),
            exponent: exponent.saturating_add(shift),
        }
    }

    fn is_integer(&self) -> bool {
        self.exponent >= 0
    }
}

/// An exponent, capped far outside the range of doubles to avoid overflow.
fn exponent_of(text: &str) -> i64 {
    const FAR: i64 = 1 << 40;
    let magnitude = text.trim_start_matches(['+', '-']);
    let magnitude = magnitude.parse::<i64>().unwrap_or(FAR).min(FAR);
    if text.starts_with('-') {
        -magnitude
    } else {
        magnitude
    }
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}
