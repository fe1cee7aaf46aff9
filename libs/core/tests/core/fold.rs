//! The fold: what each entry needs and what it leads to.
