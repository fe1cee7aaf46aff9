//! A release through the whole system: real servers, real processes, real TLS.
