mod board;
mod body;
mod bounds;
mod error;
mod identity;
mod protocol;
mod tls;
fn main() {}
