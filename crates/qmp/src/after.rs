//! What a command leaves for after its answer.

use std::fmt;

/// Work for after a command's answer: it is done when this is dropped, be it that the answer is on its way or that nobody
/// waits for it any more.
pub struct AfterAnswer(Option<Box<dyn FnOnce() + Send>>);

impl AfterAnswer {
    /// Leaves `work` for then.
    pub fn new(work: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(work)))
    }
}

impl Drop for AfterAnswer {
    fn drop(&mut self) {
        if let Some(work) = self.0.take() {
            work();
        }
    }
}

impl fmt::Debug for AfterAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AfterAnswer")
    }
}
