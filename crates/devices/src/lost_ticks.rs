//! What a timer does about ticks that its guest did not take in time.

use rhea_core::property_words;

property_words! {
    /// What a timer does about ticks that its guest did not take in time.
    #[derive(serde::Serialize, serde::Deserialize)]
    pub enum LostTickPolicy: "LostTickPolicy" {
        /// Forgets them and keeps to its beat, as hardware does.
        Discard = "discard",
        /// Lets all that follow come later by what was missed.
        Delay = "delay",
        /// Makes one of them.
        Merge = "merge",
        /// Delivers all of them, at a higher rate.
        Slew = "slew",
    }
}
