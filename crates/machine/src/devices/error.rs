//! Why a device was not made, or stays.

use rhea_core::object::PropertyError;

/// Why a device was not made, or stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Nobody makes such devices.
    #[error("'{0}' is not a valid device model name")]
    Driver(String),
    /// An id that is none.
    #[error("Parameter 'id' expects an identifier")]
    Id,
    /// An id that another device has.
    #[error("Duplicate device ID '{0}'")]
    Duplicate(String),
    /// A property is wrong.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// A processor that cannot be.
    #[error(transparent)]
    Processor(#[from] rhea_x86::system::cpuid::ModelError),
    /// A processor of another model than the machine's.
    #[error("Invalid CPU type, expected cpu type: '{0}'")]
    Model(String),
    /// The machine has no places for such devices.
    #[error("Device '{0}' can not be hotplugged on this machine")]
    NotHere(String),
    /// No bus of this name.
    #[error("Bus '{0}' not found")]
    NoBus(String),
    /// No bus that the device could be on, or none with room.
    #[error("No '{bus}' bus found for device '{driver}'")]
    NoBusOf {
        /// What is looked for.
        bus: &'static str,
        /// The device's type.
        driver: String,
    },
    /// The bus that was named is for others.
    #[error("Device '{driver}' can't go on {bus} bus")]
    WrongBus {
        /// The device's type.
        driver: String,
        /// What the bus is.
        bus: &'static str,
    },
    /// The PCI bus has no free slot.
    #[error("PCI: no slot/function available for {0}, all in use or reserved")]
    NoSlot(String),
    /// A property names what is not there.
    #[error("Property '{driver}.{property}' can't find value '{value}'")]
    NotThere {
        /// The device's type.
        driver: String,
        /// The property.
        property: &'static str,
        /// What it holds.
        value: String,
    },
    /// A property names what has a user already.
    #[error("Property '{driver}.{property}' can't take value '{value}', it's in use")]
    Taken {
        /// The device's type.
        driver: String,
        /// The property.
        property: &'static str,
        /// What it holds.
        value: String,
    },
    /// It comes and goes only with the machine.
    #[error("Device '{0}' does not support hotplugging")]
    NotHotpluggable(String),
    /// Nothing comes or goes there but with the machine.
    #[error("Bus '{0}' does not support hotplugging")]
    FixedBus(String),
    /// A function that the guest would not look for: it has seen what else is in the slot.
    #[error("PCI: slot {0} has function 0 already, and the guest would not find another function")]
    LateFunction(u8),
    /// No such device.
    #[error("Device '{0}' not found")]
    NotFound(String),
    /// A path that leads to something else.
    #[error("{0} is not a device")]
    NoDevice(String),
    /// Several objects have this path.
    #[error("Path '{0}' is ambiguous")]
    Ambiguous(String),
    /// The guest was asked before.
    #[error("Device {0} is already in the process of unplug")]
    Pending(String),
    /// The device has a reason of its own.
    #[error("{0}")]
    Refused(String),
}
