//! Descriptors that came with the conversation: `getfd`, `closefd`.

use rhea_api::descriptors::Handler;

use super::table::{Call, Printed};

/// `getfd NAME`.
pub(super) fn take(call: &Call<'_>) -> Printed {
    Handler::getfd(&mut call.commands(), call.only_word()?)?;
    Ok(String::new())
}

/// `closefd NAME`.
pub(super) fn close(call: &Call<'_>) -> Printed {
    Handler::closefd(&mut call.commands(), call.only_word()?)?;
    Ok(String::new())
}
