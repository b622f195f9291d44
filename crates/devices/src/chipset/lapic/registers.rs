//! Names and shapes of the local APIC's registers.
//!
//! Source: Intel SDM vol. 3A, ch. 10 (cited as §), table 10-1 "Local APIC Register Address Map".

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// An entry of the local vector table (§10.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lvt {
    /// The APIC's timer.
    Timer,
    /// Thermal sensor.
    Thermal,
    /// Performance counters.
    Performance,
    /// Pin LINT0: INTR where the APIC is disabled.
    Lint0,
    /// Pin LINT1: NMI where the APIC is disabled.
    Lint1,
    /// Errors of the APIC itself.
    Error,
}

/// A register, as its offset decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Local APIC ID.
    Id,
    /// Version.
    Version,
    /// Task priority.
    TaskPriority,
    /// Arbitration priority.
    ArbitrationPriority,
    /// Processor priority.
    ProcessorPriority,
    /// End of interrupt.
    Eoi,
    /// Remote read.
    RemoteRead,
    /// Logical destination.
    LogicalDestination,
    /// Destination format.
    DestinationFormat,
    /// Spurious interrupt vector.
    SpuriousVector,
    /// In service, 32 vectors a register.
    InService(usize),
    /// Trigger mode.
    TriggerMode(usize),
    /// Interrupt request.
    InterruptRequest(usize),
    /// Error status.
    ErrorStatus,
    /// Interrupt command, low half: writing it sends.
    InterruptCommand,
    /// Interrupt command, high half: the destination.
    InterruptCommandHigh,
    /// Local vector table.
    LocalVector(Lvt),
    /// Timer, initial count.
    InitialCount,
    /// Timer, current count.
    CurrentCount,
    /// Timer, divide configuration.
    DivideConfiguration,
    /// Self IPI, of x2APIC mode only.
    SelfIpi,
}

impl Register {
    /// The register at a 16-byte aligned `offset`, if there is one.
    pub const fn at(offset: u16) -> Option<Self> {
        let bank = (offset as usize >> 4) & 7;
        Some(match offset {
            0x020 => Self::Id,
            0x030 => Self::Version,
            0x080 => Self::TaskPriority,
            0x090 => Self::ArbitrationPriority,
            0x0a0 => Self::ProcessorPriority,
            0x0b0 => Self::Eoi,
            0x0c0 => Self::RemoteRead,
            0x0d0 => Self::LogicalDestination,
            0x0e0 => Self::DestinationFormat,
            0x0f0 => Self::SpuriousVector,
            0x100..=0x170 => Self::InService(bank),
            0x180..=0x1f0 => Self::TriggerMode(bank),
            0x200..=0x270 => Self::InterruptRequest(bank),
            0x280 => Self::ErrorStatus,
            0x300 => Self::InterruptCommand,
            0x310 => Self::InterruptCommandHigh,
            0x320 => Self::LocalVector(Lvt::Timer),
            0x330 => Self::LocalVector(Lvt::Thermal),
            0x340 => Self::LocalVector(Lvt::Performance),
            0x350 => Self::LocalVector(Lvt::Lint0),
            0x360 => Self::LocalVector(Lvt::Lint1),
            0x370 => Self::LocalVector(Lvt::Error),
            0x380 => Self::InitialCount,
            0x390 => Self::CurrentCount,
            0x3e0 => Self::DivideConfiguration,
            0x3f0 => Self::SelfIpi,
            _ => return None,
        })
    }
}

/// How an interrupt is delivered (§10.5.1, §10.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryMode {
    /// 000: to all destinations.
    Fixed,
    /// 001: to the destination of lowest priority.
    LowestPriority,
    /// 010: system management interrupt.
    Smi,
    /// 011: reserved.
    Reserved,
    /// 100: non-maskable interrupt.
    Nmi,
    /// 101: INIT.
    Init,
    /// 110: start-up IPI.
    Startup,
    /// 111: the vector comes from the external interrupt controller.
    ExtInt,
}

impl DeliveryMode {
    /// The mode of three bits; higher bits are ignored.
    pub const fn decode(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            3 => Self::Reserved,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::Startup,
            _ => Self::ExtInt,
        }
    }
}

/// Whether an interrupt stands for an edge or for a level, which an EOI must then be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trigger {
    /// Once, and over.
    Edge,
    /// Until the device lets go; the I/O APIC waits for the EOI.
    Level,
}

/// An interrupt as it goes to the local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptMessage {
    /// An APIC ID (all ones for everybody) or a set of logical destinations.
    pub destination: u32,
    /// Whether the destination is logical.
    pub logical: bool,
    /// Delivery mode.
    pub mode: DeliveryMode,
    /// Vector.
    pub vector: u8,
    /// Trigger mode.
    pub trigger: Trigger,
}

impl InterruptMessage {
    /// A message-signalled interrupt (§10.11): a write of `data` at `address` in 0xfee0_0000 to 0xfeef_ffff.
    pub const fn from_msi(address: u64, data: u32) -> Self {
        let destination = (address >> 12) as u32 & 0xff;
        let logical = address & 4 != 0;
        Self {
            destination: widen(destination as u8, logical),
            logical,
            mode: DeliveryMode::decode((data >> 8) as u8),
            vector: data as u8,
            trigger: if data & 0x8000 != 0 { Trigger::Level } else { Trigger::Edge },
        }
    }
}

/// An 8-bit destination in 32 bits: the physical broadcast stays one.
pub const fn widen(destination: u8, logical: bool) -> u32 {
    if destination == 0xff && !logical { u32::MAX } else { destination as u32 }
}

/// Interrupt command register (§10.6.1), in the layout of x2APIC mode.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InterruptCommand {
    pub vector: u8,
    #[bits(3)]
    pub mode: u8,
    pub logical: bool,
    pub pending: bool,
    #[bits(1)]
    __: u8,
    pub level: bool,
    pub level_trigger: bool,
    #[bits(2)]
    __: u8,
    #[bits(2)]
    pub shorthand: u8,
    #[bits(12)]
    __: u16,
    pub destination: u32,
}

/// An entry of the local vector table (§10.5.1, figure 10-8).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct LocalVector {
    pub vector: u8,
    #[bits(3)]
    pub mode: u8,
    #[bits(1)]
    __: u8,
    pub pending: bool,
    pub active_low: bool,
    pub remote_irr: bool,
    pub level: bool,
    pub masked: bool,
    #[bits(2)]
    pub timer_mode: u8,
    #[bits(13)]
    __: u16,
}

/// IA32_APIC_BASE, MSR 0x1b (§10.4.4, §10.12.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ApicBase {
    __: u8,
    /// Whether this is the bootstrap processor.
    pub bsp: bool,
    #[bits(1)]
    __: u8,
    /// x2APIC mode.
    pub x2apic: bool,
    /// Global enable.
    pub enabled: bool,
    /// Physical page of the registers.
    #[bits(40)]
    pub page: u64,
    #[bits(12)]
    __: u16,
}

/// Error status register (§10.5.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ErrorStatus {
    #[bits(5)]
    __: u8,
    pub send_illegal_vector: bool,
    pub received_illegal_vector: bool,
    pub illegal_register: bool,
    #[bits(24)]
    __: u32,
}
