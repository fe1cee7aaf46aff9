//! Formats numbers for text output.

const KIB: f64 = 1024.0;

/// Bytes in the largest unit that fits.
pub fn format_bytes(bytes: u64) -> String {
    let mebibytes = bytes as f64 / KIB / KIB;
    if mebibytes < KIB {
        format!("{mebibytes:.1} MiB")
    } else {
        format!("{:.2} GiB", mebibytes / KIB)
    }
}

/// A count in the largest unit that fits.
pub fn format_count(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{:.1} k", number as f64 / 1e3),
        _ => format!("{:.2} M", number as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_with_units() {
        assert_eq!(format_bytes(3 << 19), "1.5 MiB");
        assert_eq!(format_bytes(3 << 29), "1.50 GiB");
        assert_eq!(format_count(9_999), "9999");
        assert_eq!(format_count(12_340), "12.3 k");
        assert_eq!(format_count(5_000_000), "5.00 M");
    }
}
