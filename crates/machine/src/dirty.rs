//! The log of written pages of a machine: every page of its RAM that processors or devices wrote since somebody looked.

use std::{fmt, sync::Arc};

use rhea_core::{
    AddressSpace, Ram,
    memory::{Bitmap, Follower},
};

use crate::{parts::Parts, processors::Processors};

/// A log that runs until it is dropped.
pub struct DirtyLog {
    memory: Arc<AddressSpace>,
    processors: Arc<Processors>,
    follower: Follower,
}

impl fmt::Debug for DirtyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirtyLog({:?})", self.follower)
    }
}

impl DirtyLog {
    /// Begins; what is written after this has returned is in the log. Nothing, if `follower` has one already.
    pub fn start(parts: &Parts, follower: Follower) -> Option<Self> {
        let (memory, processors) = (Arc::clone(&parts.memory), Arc::clone(&parts.processors));
        if !memory.follow_writes(follower) {
            return None;
        }
        processors.give_up_ways_to_write();
        Some(Self { memory, processors, follower })
    }

    /// The pages written since the log was begun or last taken, of each piece of RAM that the machine has now. They may
    /// be read as soon as this has returned: what is written later is in the log again.
    pub fn take(&self) -> Vec<(Arc<Ram>, Bitmap)> {
        let rams = self.memory.view().rams();
        let taken = rams.into_iter().map(|ram| {
            let written = ram.take_written(self.follower);
            (ram, written)
        });
        let taken = taken.collect();
        self.processors.give_up_ways_to_write();
        taken
    }
}

impl Drop for DirtyLog {
    fn drop(&mut self) {
        self.memory.stop_following(self.follower);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rhea_core::{Width, memory::PAGE};

    use super::*;
    use crate::{BoardKind, Config, Machine, Software, Topology, backends::Backends};

    /// 64-bit code that starts the processor with APIC identification 1 at page 8, and counts in 64 pages from 4 MiB on.
    const FIRST: [u8; 52] = [
        0xb8, 0x00, 0x03, 0xe0, 0xfe, // mov eax, 0xfee00300
        0xc7, 0x40, 0x10, 0x00, 0x00, 0x00, 0x01, // mov dword [rax + 0x10], 1 << 24
        0xc7, 0x00, 0x00, 0x45, 0x00, 0x00, // mov dword [rax], INIT
        0xc7, 0x00, 0x08, 0x46, 0x00, 0x00, // mov dword [rax], start-up at page 8
        0xbb, 0x00, 0x00, 0x40, 0x00, // mov ebx, 0x400000
        0x48, 0xff, 0x03, // again: inc qword [rbx]
        0x81, 0xc3, 0x08, 0x10, 0x00, 0x00, // add ebx, 0x1008
        0x81, 0xe3, 0xf8, 0xff, 0x03, 0x00, // and ebx, 0x3fff8
        0x81, 0xcb, 0x00, 0x00, 0x40, 0x00, // or ebx, 0x400000
        0xeb, 0xe9, // jmp again
    ];
    /// 16-bit code that counts in the 16 pages from 0x20000 on.
    const SECOND: [u8; 13] = [
        0xb8, 0x00, 0x20, // mov ax, 0x2000
        0x8e, 0xd8, // mov ds, ax
        0xff, 0x07, // again: inc word [bx]
        0x81, 0xc3, 0x04, 0x10, // add bx, 0x1004
        0xeb, 0xf8, // jmp again
    ];
    const FIRST_PAGES: std::ops::Range<u64> = 0x400..0x440;
    const SECOND_PAGES: std::ops::Range<u64> = 0x20..0x30;

    fn counting_machine() -> Arc<Machine> {
        let address = 0x10_0000;
        let software = Software::Flat { image: FIRST.to_vec(), address, entry: address, uses: 4096 };
        let topology = Topology { cpus: 2, sockets: 2, cores: 1, threads: 1 };
        let config = Config { software, topology, ..Config::new(BoardKind::Pc, 16 << 20) };
        let machine = Machine::new(config, Backends::new().unwrap(), Arc::new(|_| ())).unwrap();
        machine.memory().write(0x8000, &SECOND);
        machine
    }

    fn pages(taken: &[(Arc<Ram>, Bitmap)]) -> BTreeSet<u64> {
        let all = taken.iter().filter(|(ram, _)| ram.name() == "pc.ram");
        all.flat_map(|(_, written)| written.iter().collect::<Vec<_>>()).collect()
    }

    #[test]
    fn nothing_that_processors_write_is_lost_while_somebody_takes() {
        let machine = counting_machine();
        machine.power_on();
        let log = DirtyLog::start(machine.parts(), Follower::Migration).unwrap();
        assert!(DirtyLog::start(machine.parts(), Follower::Migration).is_none());
        let ram = machine.memory().view().rams().into_iter().find(|ram| ram.name() == "pc.ram").unwrap();
        let mut copy = vec![0; ram.len() as usize];
        assert!(ram.read(0, &mut copy));
        let mut take = || {
            let taken = pages(&log.take());
            for page in &taken {
                let at = (page * PAGE) as usize;
                assert!(ram.read(at as u64, &mut copy[at..at + PAGE as usize]));
            }
            taken
        };
        let mut busy = 0;
        while busy < 50 {
            let taken = take();
            // Both are seen to write again and again, though each page was logged before.
            busy += u32::from(
                FIRST_PAGES.clone().any(|page| taken.contains(&page))
                    && SECOND_PAGES.clone().any(|page| taken.contains(&page)),
            );
        }
        machine.stop().unwrap();
        take();
        assert_eq!(take(), BTreeSet::new());
        let mut real = vec![0; ram.len() as usize];
        assert!(ram.read(0, &mut real));
        let wrong = (0..ram.len() / PAGE).filter(|page| {
            let at = (page * PAGE) as usize;
            real[at..at + PAGE as usize] != copy[at..at + PAGE as usize]
        });
        assert_eq!(wrong.collect::<Vec<_>>(), Vec::<u64>::new());
        machine.processors().quit();
    }

    #[test]
    fn the_global_log_goes_on_and_off_beside_a_migration() {
        let machine = counting_machine();
        let ram = machine.memory().view().rams().into_iter().find(|ram| ram.name() == "pc.ram").unwrap();
        let followed = || (ram.is_followed_by(Follower::Global), ram.is_followed_by(Follower::Migration));
        assert_eq!(followed(), (false, false));
        machine.set_global_dirty_log(true);
        machine.set_global_dirty_log(true);
        assert_eq!(followed(), (true, false));
        let log = DirtyLog::start(machine.parts(), Follower::Migration).unwrap();
        machine.memory().write(0x5000, &[1]);
        machine.set_global_dirty_log(false);
        machine.set_global_dirty_log(false);
        assert_eq!(followed(), (false, true));
        assert!(pages(&log.take()).contains(&5));
        drop(log);
        assert_eq!(followed(), (false, false));
        machine.power_on();
        while machine.memory().read_value(0x40_0000, Width::Qword) == 0 {
            std::thread::yield_now();
        }
        machine.stop().unwrap();
        assert_eq!(ram.take_written(Follower::Migration).count(), 0);
        machine.processors().quit();
    }
}
