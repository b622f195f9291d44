//! The devices that test programs use.

use std::sync::Arc;

use rhea_core::{Device, InterruptLine, LoadError, Width};
use rhea_devices::{
    Saveable,
    chipset::pci::PciFunction,
    misc::{
        debug_exit::ExitPort,
        pci_test::PciTestDevice,
        test_device::{IsaTestDevice, LINES},
    },
};

use super::{StateOf, configure, saved_by};
use crate::{bench::Bench, bytes::Bytes, subject::Subject};

pub(crate) struct Exit(Arc<ExitPort>);

impl Subject for Exit {
    type State = ();

    const PORTS: &'static [(u16, u16)] = &[(0x501, 2)];

    fn new(bench: &Bench) -> Self {
        let port = ExitPort::new(Box::new(|status| assert_eq!(status & 1, 1)));
        port.map(&bench.ports, 0x501, 2);
        Self(port)
    }

    fn reset(&self) {}

    fn save(&self) {}

    fn restore(&self, (): ()) -> Result<(), LoadError> {
        assert!(Arc::strong_count(&self.0) > 1, "the ports are at their place");
        Ok(())
    }
}

pub(crate) struct Tester(Arc<IsaTestDevice>);

impl Subject for Tester {
    saved_by!(IsaTestDevice);

    const PORTS: &'static [(u16, u16)] = &[(0xe0, 12), (0x2000, LINES as u16)];
    const MEMORY: &'static [(u64, u64)] = &[(0xff00_0000, 0x1_0000)];

    fn new(bench: &Bench) -> Self {
        let lines = std::array::from_fn(|line| InterruptLine::new(Arc::clone(&bench.ends) as _, line as u32));
        let device = IsaTestDevice::new(lines);
        device.map(&bench.ports, &bench.memory);
        Self(device)
    }
}

pub(crate) struct PciTester(Arc<PciTestDevice>);

impl PciTester {
    const WINDOW: u64 = 0x10_0000;
    const PORTS: u16 = 0x1000;
}

impl Subject for PciTester {
    saved_by!(PciTestDevice);

    const PORTS: &'static [(u16, u16)] = &[(Self::PORTS, 0x100)];
    const MEMORY: &'static [(u64, u64)] = &[(Self::WINDOW, 0x1000)];
    const OTHER: bool = true;

    fn new(bench: &Bench) -> Self {
        let empty = if bench.variant & 1 == 0 { 0 } else { 1 << 20 };
        Self(PciTestDevice::new(Arc::clone(&bench.memory), Arc::clone(&bench.ports), empty))
    }

    /// Puts the windows where accesses go, or accesses configuration space.
    fn other(&self, _: &Bench, bytes: &mut Bytes<'_>) {
        if bytes.byte().is_multiple_of(4) {
            self.0.write_config(0x10, Width::Dword, Self::WINDOW as u32);
            self.0.write_config(0x14, Width::Dword, Self::PORTS.into());
            self.0.write_config(0x04, Width::Word, 3);
        } else {
            configure(&*self.0, bytes);
        }
    }
}
