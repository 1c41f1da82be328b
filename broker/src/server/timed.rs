//! How long a handler kept a thread.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// A future that adds up the time of its polls: what it waits for does not count.
pub(super) struct Timed<F> {
    inner: Pin<Box<F>>,
    spent: Duration,
}

impl<F: Future> Timed<F> {
    /// Boxed, so that the largest handler does not decide what every idle connection weighs.
    pub(super) fn new(inner: F) -> Timed<F> {
        Timed { inner: Box::pin(inner), spent: Duration::ZERO }
    }
}

impl<F: Future> Future for Timed<F> {
    type Output = (F::Output, Duration);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let begun = Instant::now();
        let polled = self.inner.as_mut().poll(context);
        self.spent += begun.elapsed();
        polled.map(|output| (output, self.spent))
    }
}
