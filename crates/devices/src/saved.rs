//! Saved state of chips, written once: the versioned structure and its exhaustive copying both ways.

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
