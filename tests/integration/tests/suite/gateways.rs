//! Both gateways: the process under test, certificates for it, and the roles of every route.

mod announcements;
pub mod gateway_process;
mod route_roles;
pub mod test_authority;
pub mod test_releases;
