//! The balloon: takes pages from the guest that the host can use otherwise, and hears how the guest's memory is.
//!
//! Source: VIRTIO 1.2 §5.5 (cited as §).

use std::{
    collections::BTreeMap,
    io::Read as _,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use rhea_core::{Instant, LoadError, Timer, TimerQueue, trace};

use super::{DeviceType, DeviceV1, Link, Outcome, VirtioDevice, Virtqueue};

/// Bytes of a balloon page, whatever the guest's pages are.
pub const BALLOON_PAGE: u64 = 4096;

/// Feature bits (§5.5.3).
const STATISTICS: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;

/// Entries of a queue.
const QUEUE: u16 = 128;
const INFLATE: usize = 0;
const STATISTICS_QUEUE: usize = 2;
/// Most pages of one buffer; drivers give 256. A buffer with more is one that is to keep us busy.
const MOST_PAGES: usize = 1 << 16;
/// Most statistics that one buffer holds: more than there are tags.
const MOST_STATISTICS: usize = 64;

/// What the guest says of its memory (§5.5.6.3), by tag.
pub type Statistics = BTreeMap<u16, u64>;

#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    /// Pages that are wanted in the balloon.
    target: u32,
    /// Pages that the driver says are in it.
    actual: u32,
    statistics: Statistics,
    /// When they came.
    updated: Option<std::time::SystemTime>,
    /// The buffer that the driver gets back when it is asked for new ones.
    held: Option<u16>,
    /// Seconds between two askings; 0 for never.
    interval: u32,
}

/// Hears of pages that the driver has put into the balloon.
type OnChange = Box<dyn Fn(u32) + Send + Sync>;

/// The device.
pub struct Balloon {
    state: Mutex<State>,
    deflate_on_oom: bool,
    link: OnceLock<Link>,
    on_change: OnceLock<OnChange>,
    timer: Timer,
}

impl Balloon {
    /// An empty balloon; `deflate_on_oom` lets the guest take pages back when it has no others.
    pub fn new(timers: &Arc<TimerQueue>, deflate_on_oom: bool) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let weak = Weak::clone(weak);
            let timer = timers.timer(move |_| {
                if let Some(balloon) = weak.upgrade() {
                    balloon.ask_for_statistics();
                }
            });
            let (state, link, on_change) = (Mutex::default(), OnceLock::new(), OnceLock::new());
            Self { state, deflate_on_oom, link, on_change, timer }
        })
    }

    /// What to call with the balloon's pages when the driver has changed them. Set once.
    pub fn on_change(&self, callback: OnChange) {
        let _ = self.on_change.set(callback);
    }

    /// Asks the guest to have `pages` in the balloon.
    pub fn set_target(&self, pages: u32) {
        trace!(VIRTIO_BALLOON_TO_TARGET, "num_pages: {pages}");
        self.state.lock().target = pages;
        if let Some(link) = self.link.get() {
            link.config_changed();
        }
    }

    /// Pages in the balloon, as the driver says.
    pub fn actual(&self) -> u32 {
        self.state.lock().actual
    }

    /// The statistics that came last, and when.
    pub fn statistics(&self) -> (Statistics, Option<std::time::SystemTime>) {
        let state = self.state.lock();
        (state.statistics.clone(), state.updated)
    }

    /// Seconds between two askings for statistics.
    pub fn polling_interval(&self) -> u32 {
        self.state.lock().interval
    }

    /// Asks for statistics every `seconds`, now for the first time; 0 for never.
    pub fn set_polling_interval(&self, seconds: u32) {
        self.state.lock().interval = seconds;
        if seconds == 0 {
            self.timer.set_or_cancel(None);
        } else {
            self.ask_for_statistics();
        }
    }

    fn ask_for_statistics(&self) {
        let (held, interval) = {
            let mut state = self.state.lock();
            (state.held.take(), state.interval)
        };
        if let (Some(head), Some(link)) = (held, self.link.get()) {
            link.give_back(STATISTICS_QUEUE, head);
        }
        let next = (interval > 0).then(|| self.now().saturating_add(Duration::from_secs(interval.into())));
        self.timer.set_or_cancel(next);
    }

    fn now(&self) -> Instant {
        self.timer.now()
    }

    fn serve_pages(index: usize, queue: &Virtqueue) {
        queue.serve(|buffers| {
            let mut page = [0; 4];
            if buffers.reader.available_bytes() > page.len() * MOST_PAGES {
                return Outcome::Done;
            }
            while buffers.reader.read_exact(&mut page).is_ok() {
                // A page that comes back is there again when it is touched.
                if index == INFLATE {
                    queue.dma().discard_page(u64::from(u32::from_le_bytes(page)) * BALLOON_PAGE);
                }
            }
            Outcome::Done
        });
    }

    fn serve_statistics(&self, queue: &Virtqueue) {
        let mut surplus = Vec::new();
        queue.serve(|buffers| {
            let mut statistics = Statistics::new();
            let mut entry = [0; 10];
            while statistics.len() < MOST_STATISTICS && buffers.reader.read_exact(&mut entry).is_ok() {
                let [t0, t1, value @ ..] = entry;
                statistics.insert(u16::from_le_bytes([t0, t1]), u64::from_le_bytes(value));
            }
            let mut state = self.state.lock();
            state.statistics = statistics;
            state.updated = Some(std::time::SystemTime::now());
            // §5.5.6.3: there is one buffer; of a driver that gives more, the others go back.
            surplus.extend(state.held.replace(buffers.head));
            Outcome::Held
        });
        for head in surplus {
            queue.give_back(head);
        }
    }
}

/// Saved form of [`Balloon`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BalloonV1 {
    target: u32,
    actual: u32,
    statistics: Statistics,
    held: Option<u16>,
    interval: u32,
}

impl VirtioDevice for Balloon {
    fn device_type(&self) -> DeviceType {
        DeviceType { name: "virtio-balloon-pci", id: 5, transitional: 0x1002, class: 0x00_ff00 }
    }

    /// To inflate, to deflate, for statistics.
    fn queues(&self) -> Vec<u16> {
        vec![QUEUE; 3]
    }

    fn features(&self) -> u64 {
        STATISTICS | if self.deflate_on_oom { DEFLATE_ON_OOM } else { 0 }
    }

    fn config_size(&self) -> usize {
        8
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let state = self.state.lock();
        let config = [state.target.to_le_bytes(), state.actual.to_le_bytes()].concat();
        for (to, from) in data.iter_mut().zip(config.into_iter().skip(offset)) {
            *to = from;
        }
    }

    /// The driver says how many pages are in the balloon.
    fn write_config(&self, offset: usize, data: &[u8]) {
        let changed = {
            let mut state = self.state.lock();
            let mut config = [state.target.to_le_bytes(), state.actual.to_le_bytes()].concat();
            for (to, from) in config.iter_mut().skip(offset).zip(data) {
                *to = *from;
            }
            let actual = config.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
            let changed = actual != state.actual;
            state.actual = actual;
            changed.then_some(actual)
        };
        if let (Some(actual), Some(callback)) = (changed, self.on_change.get()) {
            callback(actual);
        }
    }

    fn attach(&self, link: Link) {
        let _ = self.link.set(link);
    }

    fn reset(&self) {
        let mut state = self.state.lock();
        // What was wanted is still wanted of the next driver; its pages are all with the guest again.
        state.actual = 0;
        state.statistics.clear();
        (state.updated, state.held) = (None, None);
    }

    fn save(&self) -> DeviceV1 {
        // When statistics came is of the host's time, which goes on.
        let State { target, actual, statistics, updated: _, held, interval } = self.state.lock().clone();
        DeviceV1::Balloon(BalloonV1 { target, actual, statistics, held, interval })
    }

    fn restore(&self, state: &DeviceV1) -> Result<(), LoadError> {
        let invalid = |reason| Err(LoadError::invalid("Balloon", reason));
        let DeviceV1::Balloon(BalloonV1 { target, actual, statistics, held, interval }) = state.clone() else {
            return invalid("the state of another device");
        };
        if statistics.len() > MOST_STATISTICS || held.is_some_and(|head| head >= QUEUE) {
            return invalid("more than fits");
        }
        *self.state.lock() = State { target, actual, statistics, updated: None, held, interval };
        let next = (interval > 0).then(|| self.now().saturating_add(Duration::from_secs(interval.into())));
        self.timer.set_or_cancel(next);
        Ok(())
    }

    fn serve(&self, index: usize, queue: &Virtqueue) {
        if index == STATISTICS_QUEUE {
            self.serve_statistics(queue);
        } else {
            Self::serve_pages(index, queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use rhea_core::{Clock, Width};

    use super::{
        super::queue::tests::{DATA, Driver},
        *,
    };

    fn balloon() -> Arc<Balloon> {
        Balloon::new(&TimerQueue::new(Clock::new()), true)
    }

    #[test]
    fn pages_in_the_balloon_lose_their_contents() {
        let (mut driver, balloon) = (Driver::new(), balloon());
        let queue = driver.queue();
        driver.space.write(0x8_0000, &[7; 8192]);
        driver.space.write_value(DATA, Width::Dword, 0x80);
        // Pages that there are not are no harm.
        driver.space.write_value(DATA + 4, Width::Dword, 0xffff_ffff);
        driver.offer(&[(DATA, 8, false)]);
        balloon.serve(1, &queue);
        assert_eq!(driver.space.read_value(0x8_0000, Width::Byte), 7);
        driver.offer(&[(DATA, 8, false)]);
        balloon.serve(0, &queue);
        assert_eq!(driver.space.read_value(0x8_0000, Width::Qword), 0);
        assert_eq!(driver.space.read_value(0x8_1000, Width::Byte), 7);
        assert_eq!(driver.used().0, 2);
    }

    #[test]
    fn the_driver_says_how_many_there_are_and_changes_are_told_once() {
        let balloon = balloon();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        balloon.on_change(Box::new(move |pages| log.lock().push(pages)));
        balloon.set_target(0x1_0000);
        let mut config = [0; 8];
        balloon.read_config(0, &mut config);
        assert_eq!(config, [0, 0, 1, 0, 0, 0, 0, 0]);
        balloon.write_config(4, &5_u32.to_le_bytes());
        balloon.write_config(4, &5_u32.to_le_bytes());
        balloon.write_config(0, &9_u32.to_le_bytes());
        balloon.write_config(100, &9_u32.to_le_bytes());
        assert_eq!((&*heard.lock(), balloon.actual()), (&vec![5], 5));
        balloon.read_config(0, &mut config);
        assert_eq!(config[..4], [0, 0, 1, 0]);
        balloon.reset();
        assert_eq!(balloon.actual(), 0);
    }

    #[test]
    fn statistics_are_kept_until_the_buffer_is_asked_for_again() {
        let (mut driver, balloon) = (Driver::new(), balloon());
        let queue = driver.queue();
        driver.space.write_value(DATA, Width::Word, 4);
        driver.space.write_value(DATA + 2, Width::Qword, 123_456);
        let head = driver.offer(&[(DATA, 10, false)]);
        balloon.serve(STATISTICS_QUEUE, &queue);
        assert_eq!(balloon.statistics().0, Statistics::from([(4, 123_456)]));
        assert_eq!((driver.used().0, balloon.state.lock().held), (0, Some(head)));
        let second = driver.offer(&[(DATA, 10, false)]);
        balloon.serve(STATISTICS_QUEUE, &queue);
        assert_eq!((driver.used().0, balloon.state.lock().held), (1, Some(second)));
        balloon.set_target(7);
        let (state, other) = (balloon.save(), self::balloon());
        other.restore(&state).unwrap();
        assert_eq!(other.save(), state);
        assert!(other.restore(&DeviceV1::Stateless).is_err());
    }
}
