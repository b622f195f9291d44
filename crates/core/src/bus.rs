//! The I/O port space: 65536 byte-wide ports, decoded to devices.

use crate::trace;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// The width of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// 8 bits.
    Byte = 1,
    /// 16 bits.
    Word = 2,
    /// 32 bits.
    Dword = 4,
    /// 64 bits.
    Qword = 8,
}

impl Width {
    /// Its size in bytes.
    pub const fn bytes(self) -> usize {
        self as usize
    }

    /// All ones: what a read that nothing answers returns.
    pub const fn ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self as u32)
    }

    /// The width of `bytes` bytes, if there is one.
    pub const fn of(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            8 => Some(Self::Qword),
            _ => None,
        }
    }
}

/// A device's window in the port space.
pub trait PortIo: Send + Sync {
    /// Reads at `offset` from the window's start; bits above `width` are ignored.
    fn read(&self, offset: u16, width: Width) -> u32;

    /// Writes at `offset` from the window's start.
    fn write(&self, offset: u16, width: Width, value: u32);

    /// The widest access the device decodes; wider ones reach it as several, lowest port first, as the ISA bus does it.
    fn widest(&self) -> Width {
        Width::Byte
    }

    /// What people call the window.
    fn name(&self) -> &str {
        "device"
    }
}

#[derive(Clone)]
struct Window {
    base: u16,
    /// Inclusive, so that a window may end at port 0xffff.
    last: u16,
    device: Arc<dyn PortIo>,
}

/// A device's ports, as they are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortWindow {
    /// First port.
    pub base: u16,
    /// Last port, inclusive.
    pub last: u16,
    /// What people call it.
    pub name: String,
}

/// The port space of a machine. Reads take no lock; a change of the map is seen by the next access.
#[derive(Default)]
pub struct PortSpace {
    windows: ArcSwap<Vec<Window>>,
    change: Mutex<()>,
}

impl PortSpace {
    /// A space in which nothing answers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device` at `length` ports from `base`. Where windows overlap, the one mapped last answers.
    /// A window past port 0xffff is cut there; an empty one maps nothing.
    pub fn map(&self, base: u16, length: u32, device: Arc<dyn PortIo>) {
        if length == 0 {
            return;
        }
        let last = (u32::from(base) + (length - 1).min(0xffff)).min(0xffff) as u16;
        let _change = self.change.lock();
        let mut windows = Vec::clone(&self.windows.load());
        windows.insert(0, Window { base, last, device });
        self.windows.store(Arc::new(windows));
    }

    /// Takes away every window of `device`.
    pub fn unmap(&self, device: &Arc<dyn PortIo>) {
        let _change = self.change.lock();
        let mut windows = Vec::clone(&self.windows.load());
        windows.retain(|window| !Arc::ptr_eq(&window.device, device));
        self.windows.store(Arc::new(windows));
    }

    /// All windows, by port, and where that is the same, the one that answers last.
    pub fn windows(&self) -> Vec<PortWindow> {
        let windows = self.windows.load();
        let shown = |w: &Window| PortWindow { base: w.base, last: w.last, name: w.device.name().to_owned() };
        let mut list: Vec<PortWindow> = windows.iter().rev().map(shown).collect();
        list.sort_by_key(|window| window.base);
        list
    }

    /// The ports that something answers, by port, and who does: what is covered by another window is left out.
    pub fn decoded(&self) -> Vec<PortWindow> {
        let windows = self.windows.load();
        let mut list: Vec<(PortWindow, usize)> = Vec::new();
        for port in 0..=u16::MAX {
            let Some(at) = windows.iter().position(|w| (w.base..=w.last).contains(&port)) else { continue };
            match list.last_mut() {
                Some((run, last)) if *last == at && run.last == port.wrapping_sub(1) => run.last = port,
                _ => {
                    let name = windows[at].device.name().to_owned();
                    list.push((PortWindow { base: port, last: port, name }, at));
                }
            }
        }
        list.into_iter().map(|(window, _)| window).collect()
    }

    /// An IN of `width` (at most a dword) from `port`. Ports that nothing answers read as all ones.
    pub fn read(&self, port: u16, width: Width) -> u32 {
        let value = self.read_parts(port, width);
        trace!(CPU_IN, "addr 0x{port:x}({}) value {value}", width.bytes());
        value
    }

    fn read_parts(&self, port: u16, width: Width) -> u32 {
        let windows = self.windows.load();
        let find = |port: u16| windows.iter().find(|w| (w.base..=w.last).contains(&port));
        match find(port) {
            Some(w) if width <= w.device.widest() => w.device.read(port - w.base, width) & width.ones() as u32,
            None if width == Width::Byte => 0xff,
            _ => {
                let half = if width == Width::Dword { Width::Word } else { Width::Byte };
                let low = self.read_parts(port, half);
                let high = self.read_parts(port.wrapping_add(half as u16), half);
                low | high << (8 * half as u32)
            }
        }
    }

    /// An OUT of `width` (at most a dword) to `port`. Ports that nothing answers drop it.
    pub fn write(&self, port: u16, width: Width, value: u32) {
        trace!(CPU_OUT, "addr 0x{port:x}({}) value {value}", width.bytes());
        self.write_parts(port, width, value);
    }

    fn write_parts(&self, port: u16, width: Width, value: u32) {
        let windows = self.windows.load();
        match windows.iter().find(|w| (w.base..=w.last).contains(&port)) {
            Some(w) if width <= w.device.widest() => {
                w.device.write(port - w.base, width, value & width.ones() as u32);
            }
            None if width == Width::Byte => {}
            _ => {
                let half = if width == Width::Dword { Width::Word } else { Width::Byte };
                self.write_parts(port, half, value & half.ones() as u32);
                self.write_parts(port.wrapping_add(half as u16), half, value >> (8 * half as u32));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Latch(Mutex<[u8; 4]>);

    impl PortIo for Latch {
        fn read(&self, offset: u16, _: Width) -> u32 {
            u32::from(self.0.lock()[usize::from(offset)])
        }

        fn write(&self, offset: u16, _: Width, value: u32) {
            self.0.lock()[usize::from(offset)] = value as u8;
        }
    }

    #[test]
    fn wide_accesses_to_a_byte_device_take_consecutive_ports() {
        let space = PortSpace::new();
        space.map(0x10, 4, Arc::new(Latch(Mutex::new([0; 4]))));
        space.write(0x10, Width::Dword, 0x4433_2211);
        assert_eq!(space.read(0x12, Width::Byte), 0x33);
        assert_eq!(space.read(0x11, Width::Word), 0x3322);
    }

    #[test]
    fn a_wide_access_may_hang_over_the_end_of_a_window() {
        let space = PortSpace::new();
        space.map(0x10, 4, Arc::new(Latch(Mutex::new([1, 2, 3, 4]))));
        assert_eq!(space.read(0x13, Width::Word), 0xff04);
        assert_eq!(space.read(0x0f, Width::Word), 0x01ff);
    }

    #[test]
    fn nothing_reads_as_ones() {
        assert_eq!(PortSpace::new().read(0xffff, Width::Dword), u32::MAX);
    }

    #[test]
    fn the_window_mapped_last_answers_until_it_is_taken_away() {
        let space = PortSpace::new();
        space.map(0, 4, Arc::new(Latch(Mutex::new([1; 4]))));
        let upper: Arc<dyn PortIo> = Arc::new(Latch(Mutex::new([2; 4])));
        space.map(2, 2, Arc::clone(&upper));
        let listed: Vec<_> = space.windows().iter().map(|window| (window.base, window.last)).collect();
        assert_eq!(listed, [(0, 3), (2, 3)]);
        let decoded: Vec<_> = space.decoded().iter().map(|window| (window.base, window.last)).collect();
        assert_eq!(decoded, [(0, 1), (2, 3)]);
        assert_eq!(space.read(2, Width::Byte), 2);
        space.unmap(&upper);
        assert_eq!(space.read(2, Width::Byte), 1);
    }
}
