//! Who may depend on whom, and how large a file may get.
