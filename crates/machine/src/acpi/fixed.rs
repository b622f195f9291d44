//! The tables of fixed hardware: FADT (ACPI 5.0 § 5.2.9) and HPET (IA-PC HPET 1.0a § 3.2.4).

use acpi_tables::{
    fadt::{FADT, FADTBuilder, Flags},
    gas::{AccessSize, AddressSpace, GAS},
    sdt::Sdt,
};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};

/// Where the power management hardware is in the port space of this machine.
pub mod ports {
    /// PM1a event block: status and enable, four bytes.
    pub const PM1A_EVENT: u16 = 0x600;
    /// PM1a control block, two bytes.
    pub const PM1A_CONTROL: u16 = 0x604;
    /// Power management timer, four bytes.
    pub const PM_TIMER: u16 = 0x608;
    /// General purpose events, four bytes: two of status, two of enable.
    pub const GPE0: u16 = 0xafe0;
    /// SMI command port: hands the hardware over to ACPI and back.
    pub const SMI_COMMAND: u16 = 0xb2;
    /// Value for [`SMI_COMMAND`] that turns ACPI on.
    pub const ACPI_ENABLE: u8 = 0xf1;
    /// Value for [`SMI_COMMAND`] that turns ACPI off.
    pub const ACPI_DISABLE: u8 = 0xf0;
    /// Reset control register of the PIIX.
    pub const RESET_CONTROL: u16 = 0xcf9;
}

/// Address of the HPET's registers.
pub const HPET_ADDRESS: u64 = 0xfed0_0000;

/// Interrupt of the system control interrupt.
pub const SCI: u8 = 9;

pub fn fadt(facs: u32, dsdt: u32) -> FADT {
    let port = |address: u16, bits: u8| {
        let size = match bits {
            8 => AccessSize::ByteAccess,
            16 => AccessSize::WordAccess,
            _ => AccessSize::DwordAccess,
        };
        GAS::new(AddressSpace::SystemIo, bits, 0, size, u64::from(address))
    };
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .firmware_ctrl_32(facs)
        .dsdt_32(dsdt)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::RtcS4)
        .flag(Flags::ResetRegSup)
        .gpe_info(u32::from(ports::GPE0), 0, 4, 0, 0);
    fadt.major_version = 5;
    fadt.fadt_minor_version = 0;
    fadt.sci_int = u16::from(SCI).into();
    fadt.smi_cmd = u32::from(ports::SMI_COMMAND).into();
    fadt.acpi_enable = ports::ACPI_ENABLE;
    fadt.acpi_disable = ports::ACPI_DISABLE;
    fadt.pm1a_evt_blk = u32::from(ports::PM1A_EVENT).into();
    fadt.pm1a_cnt_blk = u32::from(ports::PM1A_CONTROL).into();
    fadt.pm_tmr_blk = u32::from(ports::PM_TIMER).into();
    fadt.pm1_evt_len = 4;
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_len = 4;
    // C2 and C3 are not there (values above 100 and 1000 microseconds say so).
    fadt.p_lvl2_lat = 0xfff.into();
    fadt.p_lvl3_lat = 0xfff.into();
    fadt.century = 0x32;
    // Legacy devices and an 8042 are present.
    fadt.iapc_boot_arch = 0b11.into();
    fadt.reset_reg = port(ports::RESET_CONTROL, 8);
    fadt.reset_value = 0x0f;
    fadt.x_pm1a_evt_blk = port(ports::PM1A_EVENT, 32);
    fadt.x_pm1a_cnt_blk = port(ports::PM1A_CONTROL, 16);
    fadt.x_pm_tmr_blk = port(ports::PM_TIMER, 32);
    fadt.x_gpe0_blk = port(ports::GPE0, 32);
    fadt.finalize()
}

pub fn hpet() -> Sdt {
    let mut table = Sdt::new(*b"HPET", 36, 1, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    // Three comparators of 64 bits, legacy replacement, vendor 8086, revision 1.
    table.append(0x8086_a201_u32);
    let address = GAS::new(AddressSpace::SystemMemory, 64, 0, AccessSize::Undefined, HPET_ADDRESS);
    table.append_slice(&super::bytes(&address));
    table.append(0_u8);
    // The least number of ticks between interrupts in periodic mode that loses none.
    table.append(100_u16);
    table.append(0_u8);
    table
}
