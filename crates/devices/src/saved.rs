//! Saved state of chips, written once: the versioned structure and its exhaustive copying both ways.

use rhea_core::{LoadError, SaveState};

/// An adapter whose chip can be saved and put back.
pub trait Saveable {
    /// The chip inside.
    type Chip: SaveState;

    /// The chip's state now.
    fn save(&self) -> <Self::Chip as SaveState>::State;

    /// Puts a saved state back and drives the outputs accordingly.
    ///
    /// # Errors
    /// A state that the chip cannot have is refused, and nothing changes.
    fn restore(&self, state: <Self::Chip as SaveState>::State) -> Result<(), LoadError>;
}

/// Makes the saved form of a chip: `saved_state!(Chip => ChipV1 { field: Type, ... } if |state| valid)`. The chip is
/// taken apart exhaustively, so that a field that the list does not name fails to compile.
macro_rules! saved_state {
    ($chip:ident => $state:ident { $($field:ident: $type:ty),* $(,)? } if |$s:ident| $valid:expr) => {
        #[doc = concat!("Saved form of [`", stringify!($chip), "`].")]
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $state {
            $(
                #[doc = concat!("As `", stringify!($field), "` of the chip.")]
                pub $field: $type,
            )*
        }

        impl rhea_core::SaveState for $chip {
            type State = $state;

            fn save(&self) -> $state {
                let $chip { $($field),* } = self.clone();
                $state { $($field),* }
            }

            fn load(state: $state) -> Result<Self, rhea_core::LoadError> {
                let valid = { let $s = &state; $valid };
                if !valid {
                    return Err(rhea_core::LoadError::invalid(stringify!($chip), "a value out of its range"));
                }
                let $state { $($field),* } = state;
                Ok($chip { $($field),* })
            }
        }
    };
}
