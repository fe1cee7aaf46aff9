//! Errors of commands, with their exit codes.

use std::fmt;
use std::io;

/// The class of a failure; each has its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErrorClass {
    Refused,
    Input,
    Unreachable,
}

/// A failure with its exit code.
#[derive(Debug)]
pub struct CommandError {
    class: ErrorClass,
    /// Absent when the command has printed its negative result.
    error: Option<anyhow::Error>,
}

impl CommandError {
    /// The request was refused, or the result is negative: exit code 1.
    pub fn refused(error: impl Into<anyhow::Error>) -> Self {
        Self {
            class: ErrorClass::Refused,
            error: Some(error.into()),
        }
    }

    /// A negative result that is already printed: exit code 1.
    pub fn negative() -> Self {
        Self {
            class: ErrorClass::Refused,
            error: None,
        }
    }

    /// The arguments or a file are at fault: exit code 2.
    pub fn input(error: impl Into<anyhow::Error>) -> Self {
        Self {
            class: ErrorClass::Input,
            error: Some(error.into()),
        }
    }

    /// The server cannot be reached or cannot reply now: exit code 3.
    pub fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self {
            class: ErrorClass::Unreachable,
            error: Some(error.into()),
        }
    }

    /// True when a retry of the same command may succeed.
    pub fn is_unreachable(&self) -> bool {
        self.class == ErrorClass::Unreachable
    }

    pub fn exit_code(&self) -> u8 {
        match self.class {
            ErrorClass::Refused => 1,
            ErrorClass::Input => 2,
            ErrorClass::Unreachable => 3,
        }
    }

    /// True when standard output was closed by its reader.
    pub fn is_closed_pipe(&self) -> bool {
        self.error
            .as_ref()
            .and_then(|error| error.root_cause().downcast_ref::<io::Error>())
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Prints the error and its causes on standard error.
    pub fn report(&self) {
        if let Some(error) = &self.error {
            eprintln!("nixfleet: {error:#}");
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "{error:#}"),
            None => f.write_str("the result is negative"),
        }
    }
}

/// Classifies an error as one of the input, with a context.
pub trait InputContext<T> {
    /// Exit code 2.
    fn or_input_error(self, context: impl FnOnce() -> String) -> Result<T, CommandError>;
}

impl<T, E: Into<anyhow::Error>> InputContext<T> for Result<T, E> {
    fn or_input_error(self, context: impl FnOnce() -> String) -> Result<T, CommandError> {
        self.map_err(|error| CommandError::input(error.into().context(context())))
    }
}
