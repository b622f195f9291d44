//! Trace events: points that the program passes, whose passing can be written to its log. Each is switched on and off by
//! name while the machine runs; one that is off costs a load and a branch.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

/// The target of the log under which trace events are written.
pub const TARGET: &str = "trace";

/// A point that the program passes.
#[derive(Debug)]
pub struct TraceEvent {
    name: &'static str,
    enabled: AtomicBool,
}

impl TraceEvent {
    const fn new(name: &'static str) -> Self {
        Self { name, enabled: AtomicBool::new(false) }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether its passing is written down.
    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Switches it on or off.
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Writes down that it was passed, with `arguments`. Use [`trace!`](crate::trace!), which asks first whether it is on.
    #[cold]
    pub fn write(&self, arguments: fmt::Arguments<'_>) {
        tracing::info!(target: TARGET, "{} {arguments}", self.name);
    }
}

/// Writes down, if that is wanted, that the program passed a trace event: its name in [`events`], then a format and its
/// arguments, which are evaluated only then.
#[macro_export]
macro_rules! trace {
    ($event:ident, $($arguments:tt)+) => {
        if $crate::trace::events::$event.is_enabled() {
            $crate::trace::events::$event.write(::core::format_args!($($arguments)+));
        }
    };
}

/// Declares events, each by its constant and its name, and lists them.
macro_rules! trace_events {
    ($($(#[$meta:meta])* $event:ident = $name:literal,)+) => {
        /// The trace events by their constants, for [`trace!`](crate::trace!).
        pub mod events {
            use super::TraceEvent;
            $($(#[$meta])* pub static $event: TraceEvent = TraceEvent::new($name);)+
        }

        /// All trace events, by name.
        pub static EVENTS: &[&TraceEvent] = &[$(&events::$event),+];
    };
}

trace_events! {
    /// A GPE enable register was read.
    ACPI_GPE_EN_IOPORT_READB = "acpi_gpe_en_ioport_readb",
    /// A GPE enable register was written.
    ACPI_GPE_EN_IOPORT_WRITEB = "acpi_gpe_en_ioport_writeb",
    /// A GPE status register was read.
    ACPI_GPE_STS_IOPORT_READB = "acpi_gpe_sts_ioport_readb",
    /// A GPE status register was written.
    ACPI_GPE_STS_IOPORT_WRITEB = "acpi_gpe_sts_ioport_writeb",
    /// A local APIC has an interrupt message for a processor.
    APIC_DELIVER_IRQ = "apic_deliver_irq",
    /// A pin of a local APIC changed.
    APIC_LOCAL_DELIVER = "apic_local_deliver",
    /// A register of a local APIC was read.
    APIC_REGISTER_READ = "apic_register_read",
    /// A register of a local APIC was written.
    APIC_REGISTER_WRITE = "apic_register_write",
    /// A processor read a port.
    CPU_IN = "cpu_in",
    /// A processor wrote a port.
    CPU_OUT = "cpu_out",
    /// A byte of a configuration item was read.
    FW_CFG_READ = "fw_cfg_read",
    /// A configuration item was selected.
    FW_CFG_SELECT = "fw_cfg_select",
    /// A command came to a monitor for people.
    HANDLE_HMP_COMMAND = "handle_hmp_command",
    /// A command came to a QMP monitor.
    HANDLE_QMP_COMMAND = "handle_qmp_command",
    /// A register of the HPET was read.
    HPET_RAM_READ = "hpet_ram_read",
    /// A register of the HPET was written.
    HPET_RAM_WRITE = "hpet_ram_write",
    /// A register of the I/O APIC was read.
    IOAPIC_MEM_READ = "ioapic_mem_read",
    /// A register of the I/O APIC was written.
    IOAPIC_MEM_WRITE = "ioapic_mem_write",
    /// An input of the I/O APIC changed.
    IOAPIC_SET_IRQ = "ioapic_set_irq",
    /// A device's registers in memory were read.
    MEMORY_REGION_OPS_READ = "memory_region_ops_read",
    /// A device's registers in memory were written.
    MEMORY_REGION_OPS_WRITE = "memory_region_ops_write",
    /// An event goes to the QMP monitors.
    MONITOR_PROTOCOL_EVENT_EMIT = "monitor_protocol_event_emit",
    /// A register in configuration space was read.
    PCI_CFG_READ = "pci_cfg_read",
    /// A register in configuration space was written.
    PCI_CFG_WRITE = "pci_cfg_write",
    /// The keyboard controller's data port was read.
    PCKBD_KBD_READ_DATA = "pckbd_kbd_read_data",
    /// The keyboard controller's status was read.
    PCKBD_KBD_READ_STATUS = "pckbd_kbd_read_status",
    /// The keyboard controller got a command.
    PCKBD_KBD_WRITE_COMMAND = "pckbd_kbd_write_command",
    /// The keyboard controller got data.
    PCKBD_KBD_WRITE_DATA = "pckbd_kbd_write_data",
    /// A register of an interrupt controller was read.
    PIC_IOPORT_READ = "pic_ioport_read",
    /// A register of an interrupt controller was written.
    PIC_IOPORT_WRITE = "pic_ioport_write",
    /// An input of the interrupt controllers changed.
    PIC_SET_IRQ = "pic_set_irq",
    /// A register of the interval timer was read.
    PIT_IOPORT_READ = "pit_ioport_read",
    /// A register of the interval timer was written.
    PIT_IOPORT_WRITE = "pit_ioport_write",
    /// The guest is asked to power off.
    QEMU_SYSTEM_POWERDOWN_REQUEST = "qemu_system_powerdown_request",
    /// The machine is to end.
    QEMU_SYSTEM_SHUTDOWN_REQUEST = "qemu_system_shutdown_request",
    /// A register of the clock of date and time was read.
    RTC_IOPORT_READ = "rtc_ioport_read",
    /// A register of the clock of date and time was written.
    RTC_IOPORT_WRITE = "rtc_ioport_write",
    /// The machine's run state changes.
    RUNSTATE_SET = "runstate_set",
    /// A register of a serial port was read.
    SERIAL_READ = "serial_read",
    /// A register of a serial port was written.
    SERIAL_WRITE = "serial_write",
    /// The machine is to wake up.
    SYSTEM_WAKEUP_REQUEST = "system_wakeup_request",
    /// The balloon is to have another size.
    VIRTIO_BALLOON_TO_TARGET = "virtio_balloon_to_target",
    /// A disk's request is done.
    VIRTIO_BLK_REQ_COMPLETE = "virtio_blk_req_complete",
    /// A virtio device interrupts its driver.
    VIRTIO_NOTIFY = "virtio_notify",
    /// A driver says that there is work in a queue.
    VIRTIO_QUEUE_NOTIFY = "virtio_queue_notify",
    /// A driver got random bytes.
    VIRTIO_RNG_PUSHED = "virtio_rng_pushed",
    /// A driver set a virtio device's status.
    VIRTIO_SET_STATUS = "virtio_set_status",
    /// A watchdog ran out.
    WATCHDOG_PERFORM_ACTION = "watchdog_perform_action",
}

/// The event of this name.
pub fn event(name: &str) -> Option<&'static TraceEvent> {
    EVENTS.iter().copied().find(|event| event.name == name)
}

/// Whether a name stands for several events.
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// The events whose names match a pattern: `*` stands for any text, `?` for any letter.
pub fn matching(pattern: &str) -> impl Iterator<Item = &'static TraceEvent> + '_ {
    EVENTS.iter().copied().filter(move |event| matches(pattern.as_bytes(), event.name.as_bytes()))
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut next) = (0, 0);
    // The latest star, and up to where it has eaten: only that has to be tried again.
    let mut star = None;
    while at < name.len() {
        match pattern.get(next) {
            Some(b'*') => {
                star = Some((next, at));
                next += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[at] => (at, next) = (at + 1, next + 1),
            _ => {
                let Some((place, eaten)) = star else { return false };
                star = Some((place, eaten + 1));
                (at, next) = (eaten + 1, place + 1);
            }
        }
    }
    pattern[next..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_are_their_constants() {
        assert!(EVENTS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(EVENTS.iter().all(|event| event.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
        assert_eq!(events::RUNSTATE_SET.name(), "runstate_set");
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*b*b*", "abab", true),
            ("?bc", "abc", true),
            ("?", "", false),
            ("a", "ab", false),
            ("**********b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        let names: Vec<&str> = matching("pci_cfg_*").map(TraceEvent::name).collect();
        assert_eq!(names, ["pci_cfg_read", "pci_cfg_write"]);
        assert!(event("pci_cfg_*").is_none() && is_pattern("pci_cfg_*") && !is_pattern("pci_cfg_read"));
    }

    #[test]
    fn what_is_off_evaluates_nothing() {
        let count = std::cell::Cell::new(0);
        let argument = || count.set(count.get() + 1);
        crate::trace!(CPU_IN, "{:?}", argument());
        assert_eq!(count.get(), 0);
        events::CPU_OUT.set_enabled(true);
        crate::trace!(CPU_OUT, "{:?}", argument());
        events::CPU_OUT.set_enabled(false);
        assert_eq!(count.get(), 1);
    }
}
