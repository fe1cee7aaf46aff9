//! Both gateways: the process under test, certificates for it, and the roles of every route.

pub mod authority;
pub mod gateway;
mod roles;
