//! What a processor sees of the machine besides memory: ports, its interrupt controller and time.

use rhea_core::Width;

/// The machine as one processor sees it; each processor has its own.
pub trait SystemBus: Send + Sync {
    /// IN: reads `width` (at most a dword) from `port`.
    fn port_read(&self, port: u16, width: Width) -> u32;

    /// OUT: writes `width` (at most a dword) to `port`.
    fn port_write(&self, port: u16, width: Width, value: u32);

    /// Reads device memory, or a hole, at a guest physical address; RAM is not read through this.
    fn memory_read(&self, address: u64, width: Width) -> u64;

    /// Writes device memory, or a hole, at a guest physical address; RAM is not written through this.
    fn memory_write(&self, address: u64, width: Width, value: u64);

    /// The vector of the interrupt that the controller presents, which is thereby accepted; `None` if it withdrew it.
    fn acknowledge_interrupt(&self) -> Option<u8>;

    /// The time stamp counter before the guest's own offset.
    fn tsc(&self) -> u64;

    /// A random number that nobody can foresee; `None` if there is none right now.
    fn random(&self) -> Option<u64>;

    /// The task priority (CR8), 0 to 15.
    fn task_priority(&self) -> u8;

    /// Sets the task priority (CR8), 0 to 15.
    fn set_task_priority(&self, priority: u8);

    /// Writes the local APIC's IA32_TSC_DEADLINE; [`tsc`](Self::tsc) is `at` when the guest's counter reaches `deadline`.
    fn set_tsc_deadline(&self, deadline: u64, at: u64);

    /// Reads a register of the local APIC's: IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC range 0x800 to 0x8ff.
    /// `None` is a general protection fault.
    fn apic_msr_read(&self, msr: u32) -> Option<u64>;

    /// Writes such a register, other than IA32_TSC_DEADLINE. `None` is a general protection fault.
    fn apic_msr_write(&self, msr: u32, value: u64) -> Option<()>;

    /// Drives FERR#: an x87 error is pending that is not an exception. The pin may be connected to nothing.
    fn set_x87_error(&self, asserted: bool) {
        let _ = asserted;
    }

    /// The level of IGNNE#: x87 instructions are executed in spite of such an error.
    fn ignores_x87_errors(&self) -> bool {
        false
    }
}
