//! What people look at in a machine that no command of the interface shows: interrupt controllers, the page tables of a
//! processor, ports.

use std::{sync::Arc, time::Duration};

use rhea_core::{PortSpace, Width};
use rhea_devices::{chipset::lapic::Inspection, input::Buttons};
use rhea_page_tables::PageTables;

pub use crate::board::shown::{InterruptControllers, LoadedItem, Place};
use crate::{input::TooManyKeys, machine::Machine};

/// How often the inputs of an interrupt controller were asserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterruptCounts {
    /// The controller's type.
    pub name: &'static str,
    /// By number of the input.
    pub counts: Vec<u64>,
}

/// There is no such device in this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// No keyboard and no mouse.
    #[error("this machine has no keyboard and no mouse")]
    NoDevice,
    /// Keys wait already.
    #[error(transparent)]
    TooManyKeys(#[from] TooManyKeys),
}

impl Machine {
    /// The interrupt controllers, if the board has any.
    pub fn interrupt_controllers(&self) -> Option<InterruptControllers> {
        self.board().interrupt_controllers()
    }

    /// The local APIC with that identification.
    pub fn local_apic(&self, id: u8) -> Option<Inspection> {
        self.board().local_apic(id)
    }

    /// How often interrupts came, by controller.
    pub fn interrupt_counts(&self) -> Vec<InterruptCounts> {
        self.parts().taps.counts().into_iter().map(|(name, counts)| InterruptCounts { name, counts }).collect()
    }

    /// The page tables of a processor as they are in force now; nothing while it does not use any, or is not there.
    pub fn page_tables(&self, processor: usize) -> Option<PageTables> {
        self.processors().get(processor)?.with(|vcpu| vcpu.state().page_tables())?
    }

    /// The guest physical address of a virtual one, as that processor sees it.
    pub fn physical_address(&self, processor: usize, address: u64) -> Option<u64> {
        self.processors().get(processor)?.with(move |vcpu| vcpu.state().debug_translate(address))?
    }

    /// The I/O ports.
    pub fn ports(&self) -> &Arc<PortSpace> {
        &self.parts().ports
    }

    /// An IN, as a processor does it.
    pub fn read_port(&self, port: u16, width: Width) -> u32 {
        self.ports().read(port, width)
    }

    /// An OUT, as a processor does it.
    pub fn write_port(&self, port: u16, width: Width, value: u32) {
        self.ports().write(port, width, value);
    }

    /// What was loaded.
    pub fn loaded_items(&self) -> Vec<LoadedItem> {
        self.board().loaded_items()
    }

    /// Types keys: see [`Input::type_keys`](crate::input::Input::type_keys).
    ///
    /// # Errors
    /// There is no keyboard, or too many keys wait.
    pub fn type_keys(&self, keys: &[u8], hold: Duration) -> Result<(), InputError> {
        Ok(self.board().input().ok_or(InputError::NoDevice)?.type_keys(keys, hold)?)
    }

    /// Whether there is a keyboard, and a mouse.
    pub fn has_input(&self) -> bool {
        self.board().input().is_some()
    }

    /// Moves the mouse right and down, and its wheel towards the user.
    ///
    /// # Errors
    /// There is no mouse.
    pub fn move_mouse(&self, right: i32, down: i32, wheel: i32) -> Result<(), InputError> {
        self.board().input().ok_or(InputError::NoDevice)?.move_mouse(right, down, wheel);
        Ok(())
    }

    /// Says which of the mouse's buttons are down.
    ///
    /// # Errors
    /// There is no mouse.
    pub fn set_mouse_buttons(&self, buttons: Buttons) -> Result<(), InputError> {
        self.board().input().ok_or(InputError::NoDevice)?.set_buttons(buttons);
        Ok(())
    }
}
