//! A broker's no, told apart from a connection that broke.

use std::fmt;

use anyhow::Result;
use kafka_protocol::{error::ResponseError, protocol::StrBytes};

/// An error code in an answer: the broker is there, and said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked.
    pub request: &'static str,
    /// Kafka's code.
    pub code: i16,
    /// What the broker said about it.
    pub message: Option<String>,
}

impl Refusal {
    /// Nothing for code 0.
    ///
    /// # Errors
    /// A [`Refusal`] for any other.
    pub fn check(request: &'static str, code: i16, message: Option<StrBytes>) -> Result<()> {
        match code {
            0 => Ok(()),
            code => Err(Refusal { request, code, message: message.map(|text| text.to_string()) }.into()),
        }
    }

    /// The refusal in `error`, if it is one.
    pub fn of(error: &anyhow::Error) -> Option<&Refusal> {
        error.downcast_ref()
    }

    /// The error by its name.
    pub fn name(&self) -> ResponseError {
        ResponseError::try_from_code(self.code).unwrap_or(ResponseError::Unknown(self.code))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: error {} {:?} {:?}", self.request, self.code, self.name(), self.message)
    }
}

impl std::error::Error for Refusal {}
