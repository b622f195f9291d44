//! One processor: the loop that finds code and runs it, and what comes between instructions.

use std::sync::{Arc, atomic::Ordering};

use rhea_core::memory::AddressSpace;

use super::{
    CodeEpoch,
    block::{CodePage, Place, decode_block},
    cache::{BlockId, Cache},
    epoch::Member,
    mode::Mode,
    ram::RamMap,
};
use crate::{
    access::Access,
    bus::SystemBus,
    op::{Op, Prefix},
    state::{CpuState, Request, Requests, Rflags, reg, seg},
    system::{breakpoints::HITS, cpuid::CpuidTable, msr::BRANCH_TRAP},
    trap::{Exception, Trap},
};

/// DR6.BS: a single step (SDM vol. 3 § 17.2.3).
const SINGLE_STEP: u64 = 1 << 14;

/// What a processor is made of.
pub struct VcpuConfig {
    /// Its number in the machine.
    pub index: usize,
    /// The machine around it.
    pub bus: Arc<dyn SystemBus>,
    /// The machine's memory.
    pub memory: Arc<AddressSpace>,
    /// CPUID as the guest sees it.
    pub cpuid: CpuidTable,
    /// What others ask of it.
    pub requests: Arc<Requests>,
    /// What the machine's processors agree to be code: one for all of them.
    pub code_epoch: Arc<CodeEpoch>,
    /// Whether it runs after a reset; the others wait for a start-up IPI.
    pub bootstrap: bool,
}

/// Why [`Vcpu::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// [`Request::EXIT`] was asked for.
    Asked,
    /// The processor waits for an interrupt: call again when anything is asked of it.
    Halted,
    /// It waits for a store, or for anything else to happen: call again when anything is asked of it. A store asks if
    /// [`watch`](Vcpu::watch) was told how.
    Waiting,
    /// It waits for the processors that run, for a moment: call again soon.
    Contended,
    /// It shut down: call again when INIT is asked of it, or after a reset.
    Shutdown,
    /// It waits for a start-up IPI: call again when anything is asked of it.
    WaitingForStartup,
    /// An exception was raised, and the processor was told to stop at those.
    Exception,
}

/// What a processor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Activity {
    Running,
    Halted,
    /// MWAIT, or an x87 error that the chipset was told of: until anything happens.
    Waiting,
    Shutdown,
    WaitingForStartup,
}

/// One processor.
pub struct Vcpu {
    pub(super) state: CpuState,
    pub(super) cache: Cache,
    /// Operations of a block that is executed once and not kept.
    pub(super) once: Vec<Op>,
    pub(super) member: Member,
    /// The epoch up to which write translations were dropped.
    pub(super) epoch: u64,
    pub(super) index: usize,
    pub(super) bootstrap: bool,
    pub(super) activity: Activity,
    pub(super) nmi_pending: bool,
    pub(super) instructions: u64,
    pub(super) stop_at_exceptions: bool,
}

/// Where the next instructions are.
#[derive(Clone, Copy)]
enum Found {
    /// In the cache, under a context.
    Kept(BlockId, u64),
    /// In `Vcpu::once`.
    Once,
}

/// What ended a run of operations.
enum End {
    /// They are all done, and RIP is set.
    Done,
    /// The operation at an offset and with a length did not just end; the number of operations done before it.
    Trap(Trap, Op, usize),
}

impl Vcpu {
    /// A processor in its reset state.
    pub fn new(config: VcpuConfig) -> Box<Self> {
        let member = Member::join(config.code_epoch, Arc::clone(&config.requests));
        let mut state = CpuState::new(config.cpuid, config.memory, config.bus, config.requests);
        state.configure_paging();
        let mut vcpu = Box::new(Self {
            state,
            cache: Cache::new(),
            once: Vec::new(),
            member,
            epoch: 0,
            index: config.index,
            bootstrap: config.bootstrap,
            activity: Activity::Running,
            nmi_pending: false,
            instructions: 0,
            stop_at_exceptions: false,
        });
        vcpu.refresh_memory();
        vcpu.reset();
        vcpu
    }

    /// Its number in the machine.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The processor's state.
    pub const fn state(&self) -> &CpuState {
        &self.state
    }

    /// The processor's state, to change it. Who changes what the mode depends on calls
    /// [`update_mode`](CpuState::update_mode), who changes what paging depends on
    /// [`paging_changed`](CpuState::paging_changed).
    pub const fn state_mut(&mut self) -> &mut CpuState {
        &mut self.state
    }

    /// The state alone.
    pub fn into_state(self: Box<Self>) -> Box<CpuState> {
        Box::new(self.state)
    }

    /// Power-on or a system reset: the bootstrap processor will run from the reset vector, another waits for its start-up.
    pub fn reset(&mut self) {
        self.state.reset();
        self.nmi_pending = false;
        let _ = self.state.requests.take(Request::NMI | Request::INIT | Request::STARTUP | Request::INTERRUPT);
        self.await_startup();
    }

    /// Lets a processor run that waits for its start-up or was halted: for a machine that sets the state by itself.
    pub const fn start(&mut self) {
        self.activity = Activity::Running;
    }

    /// Whether the processor is halted, shut down or waits for its start-up.
    pub fn idle(&self) -> bool {
        self.activity != Activity::Running
    }

    /// Instructions executed since the processor was made.
    pub const fn instructions(&self) -> u64 {
        self.instructions
    }

    /// Whether [`run`](Self::run) returns at an exception instead of delivering it: RIP is the instruction's then.
    pub const fn stop_at_exceptions(&mut self, stop: bool) {
        self.stop_at_exceptions = stop;
    }

    const fn await_startup(&mut self) {
        self.activity = if self.bootstrap { Activity::Running } else { Activity::WaitingForStartup };
    }

    /// Takes the memory map as it is now.
    fn refresh_memory(&mut self) {
        self.state.view = Arc::clone(&self.state.memory.view());
        self.state.engine.ram = RamMap::new(&self.state.view);
        self.state.engine.monitor.forget();
        let mask = self.state.requests.address_mask();
        self.state.set_address_mask(mask);
        self.state.flush_all();
    }

    /// RAM came or went: it is looked up anew, and no code of it is kept. Called between runs.
    pub fn memory_changed(&mut self) {
        self.refresh_memory();
        // Blocks hold the RAM that they were decoded from.
        self.cache.clear();
    }

    /// Runs the guest until something else is to be done.
    pub fn run(&mut self) -> Exit {
        // While the processor rested it counted as having dropped its write translations.
        let epoch = self.member.enter();
        if epoch != self.epoch {
            self.state.drop_write_translations();
            self.epoch = epoch;
        }
        self.member.acknowledge(epoch);
        let exit = loop {
            if let Some(exit) = self.between_instructions() {
                break exit;
            }
            let state = &self.state;
            let single =
                state.interrupt_shadow || state.mode().contains(Mode::TRAP_FLAG) || state.engine.breakpoints.armed;
            let exit = if single { self.step() } else { self.run_blocks() };
            if let Some(exit) = exit {
                break exit;
            }
        };
        self.member.leave();
        exit
    }

    /// Requests, and interrupts if one may come now.
    #[inline(always)]
    fn between_instructions(&mut self) -> Option<Exit> {
        loop {
            if self.state.requests.any()
                && let Some(exit) = self.serve_requests()
            {
                return Some(exit);
            }
            let state = &self.state;
            let quiet = !self.nmi_pending && !state.requests.interrupt.load(Ordering::Relaxed);
            if quiet && self.activity == Activity::Running {
                return None;
            }
            if !self.take_interrupt() {
                return match self.activity {
                    Activity::Running => None,
                    Activity::Halted => Some(Exit::Halted),
                    Activity::Waiting if self.state.engine.monitor.triggered() => {
                        self.activity = Activity::Running;
                        None
                    }
                    Activity::Waiting => Some(Exit::Waiting),
                    Activity::Shutdown => Some(Exit::Shutdown),
                    Activity::WaitingForStartup => Some(Exit::WaitingForStartup),
                };
            }
        }
    }

    #[cold]
    fn serve_requests(&mut self) -> Option<Exit> {
        let asked = self.state.requests.take(Request::all());
        // Whatever it is may be what was waited for, and waiting may end without that.
        if self.activity == Activity::Waiting {
            self.activity = Activity::Running;
        }
        if asked.contains(Request::FLUSH) {
            self.refresh_memory();
        }
        if asked.contains(Request::CODE_PAGES) {
            // Read before the translations go: what is marked later is asked for again.
            self.epoch = self.member.current();
            self.state.drop_write_translations();
            self.member.acknowledge(self.epoch);
        }
        if asked.contains(Request::NMI) {
            self.nmi_pending = true;
        }
        if asked.contains(Request::INIT) {
            self.state.init();
            self.nmi_pending = false;
            self.await_startup();
        }
        if asked.contains(Request::STARTUP) && self.activity == Activity::WaitingForStartup {
            let vector = self.state.requests.startup_vector();
            self.state.startup(vector);
            self.activity = Activity::Running;
        }
        asked.contains(Request::EXIT).then_some(Exit::Asked)
    }

    /// Delivers an interrupt that waits, if one may come now; whether it did.
    #[cold]
    fn take_interrupt(&mut self) -> bool {
        let takes = matches!(self.activity, Activity::Running | Activity::Halted | Activity::Waiting);
        if !takes || self.state.interrupt_shadow {
            return false;
        }
        let delivered = if self.nmi_pending && !self.state.nmi_blocked {
            self.nmi_pending = false;
            self.state.deliver_nmi()
        } else if self.state.rflags & Rflags::IF.bits() != 0
            && self.state.requests.interrupt.load(Ordering::SeqCst)
            && let Some(vector) = self.state.bus.acknowledge_interrupt()
        {
            self.state.deliver_interrupt(vector)
        } else {
            return false;
        };
        self.activity = Activity::Running;
        self.delivered(delivered);
        true
    }

    /// After a delivery: a failed one shuts the processor down.
    fn delivered(&mut self, result: Result<(), Trap>) {
        // What delivery wrote cannot have hit a running block.
        self.state.engine.stop = false;
        self.state.engine.monitor.disarm();
        if result.is_err() {
            self.activity = Activity::Shutdown;
        }
    }

    /// Delivers the exception that was raised, at the instruction of `rip`.
    #[cold]
    fn exception(&mut self, rip: u64) -> Option<Exit> {
        self.state.engine.non_canonical = false;
        // An instruction that is restarted meets its data again.
        self.state.engine.breakpoints.hits = 0;
        self.state.rip = rip;
        if self.stop_at_exceptions {
            return Some(Exit::Exception);
        }
        let result = self.state.deliver_exception(self.state.exception, rip);
        self.delivered(result);
        None
    }

    /// Runs block after block until something is asked for or an instruction does not just end.
    fn run_blocks(&mut self) -> Option<Exit> {
        let mut from = None;
        let (mut id, mut context) = match self.find(false) {
            Ok(Found::Kept(id, context)) => (id, context),
            Ok(Found::Once) => return self.run_once().1,
            Err(_) => return self.exception(self.state.rip),
        };
        loop {
            if let Some(from) = from.take() {
                self.cache.link(from, self.state.rip, context, id);
            }
            loop {
                let block = self.cache.block(id);
                if block.stale() {
                    break;
                }
                let count = u64::from(block.instructions);
                match execute(&mut self.state, self.cache.ops_of(block)) {
                    End::Done => self.instructions += count,
                    End::Trap(trap, op, done) => {
                        self.instructions += done as u64;
                        return self.trapped(trap, &op).1;
                    }
                }
                if self.state.requests.any() {
                    return None;
                }
                let rip = self.state.rip;
                let contexts = &self.state.engine.contexts;
                from = Some(id);
                if let Some(next) = Cache::linked(block, rip, |context| contexts.holds(context)) {
                    id = next;
                } else if let Some((next, context)) = self.cache.jump(rip, |context| contexts.holds(context)) {
                    self.cache.link(id, rip, context, next);
                    id = next;
                } else {
                    break;
                }
            }
            let forgotten = self.cache.times_forgotten();
            (id, context) = match self.find(false) {
                Ok(Found::Kept(id, context)) => (id, context),
                Ok(Found::Once) => return self.run_once().1,
                Err(_) => return self.exception(self.state.rip),
            };
            if self.cache.times_forgotten() != forgotten {
                from = None;
            }
        }
    }

    /// Runs one instruction, with what a set trap flag, an interrupt shadow or a breakpoint brings.
    #[cold]
    fn step(&mut self) -> Option<Exit> {
        let state = &mut self.state;
        let trap_flag = state.mode().contains(Mode::TRAP_FLAG);
        // Shadows cover this instruction only; it may cast its own.
        state.interrupt_shadow = false;
        let stack_loaded = std::mem::take(&mut state.engine.breakpoints.stack_loaded);
        let resume = state.rflags & Rflags::RF.bits() != 0;
        if state.engine.breakpoints.armed && !resume && !stack_loaded {
            let hits = state.code_breakpoints();
            if hits != 0 {
                return self.debug_exception(hits);
            }
        }
        self.state.rflags &= !Rflags::RF.bits();
        let start = self.state.rip;
        let (first, (completed, exit)) = match self.find(true) {
            Ok(Found::Once) => (self.once.first().copied(), self.run_once()),
            Ok(Found::Kept(id, _)) => {
                let ops = self.cache.ops_of(self.cache.block(id));
                let first = ops.first().copied();
                let end = execute(&mut self.state, ops);
                (first, self.ended(&end, 1))
            }
            Err(_) => (None, (false, self.exception(self.state.rip))),
        };
        let state = &mut self.state;
        if exit.is_some() {
            return exit;
        }
        let repeats = first.is_some_and(|op| matches!(op.prefix, Prefix::Rep | Prefix::Repne)) && state.rip == start;
        if resume && completed && repeats {
            // It is one instruction still.
            state.rflags |= Rflags::RF.bits();
        }
        if state.engine.breakpoints.stack_loaded {
            return None;
        }
        let follows = first.is_some_and(|op| state.rip == start.wrapping_add(u64::from(op.length)));
        let branches_only = state.msr.debugctl & BRANCH_TRAP != 0;
        let hits = std::mem::take(&mut state.engine.breakpoints.hits);
        let single = trap_flag && completed && !(branches_only && (follows || repeats));
        if single || hits != 0 {
            return self.debug_exception(hits | if single { SINGLE_STEP } else { 0 });
        }
        None
    }

    /// Raises #DB for what `causes` says in the bits of DR6.
    fn debug_exception(&mut self, causes: u64) -> Option<Exit> {
        self.state.dr[6] = self.state.dr[6] & !HITS | causes;
        self.state.exception = Exception::DEBUG;
        self.activity = Activity::Running;
        self.exception(self.state.rip)
    }

    /// Runs the block that is not kept. Whether its last instruction completed, and why to leave.
    #[cold]
    fn run_once(&mut self) -> (bool, Option<Exit>) {
        let ops = std::mem::take(&mut self.once);
        let end = execute(&mut self.state, &ops);
        let count = ops.len() as u64;
        self.once = ops;
        self.ended(&end, count)
    }

    fn ended(&mut self, end: &End, count: u64) -> (bool, Option<Exit>) {
        match end {
            End::Done => {
                self.instructions += count;
                (true, None)
            }
            End::Trap(trap, op, done) => {
                self.instructions += *done as u64;
                self.trapped(*trap, op)
            }
        }
    }

    /// After an instruction that did not just end. Whether it completed, so that a single step ends after it, and why to
    /// leave.
    fn trapped(&mut self, trap: Trap, op: &Op) -> (bool, Option<Exit>) {
        let mask = self.state.mode().pointer_mask();
        let start = self.state.rip.wrapping_add(u64::from(op.offset)) & mask;
        let next = start.wrapping_add(u64::from(op.length));
        match trap {
            Trap::EXCEPTION => {
                let state = &mut self.state;
                // The stack segment is what addresses formed with RSP and RBP are in (SDM vol. 1 § 3.7.4).
                if state.engine.non_canonical
                    && op.segment == seg::FLAT
                    && matches!(op.base, reg::RSP | reg::RBP)
                    && state.exception == Exception::general_protection(0)
                {
                    state.exception = Exception::stack(0);
                }
                return (false, self.exception(start));
            }
            Trap::AGAIN => self.state.rip = start,
            Trap::JUMP => {
                self.instructions += 1;
                return (self.state.mode().contains(Mode::TRAP_FLAG), None);
            }
            Trap::RETURN => {
                self.instructions += 1;
                return (true, None);
            }
            Trap::MONITOR | Trap::MONITOR_FRESH => {
                if trap == Trap::MONITOR_FRESH {
                    self.member.announce();
                }
                let agreed = self.member.agreed();
                if !self.state.engine.monitor.agree(agreed) {
                    self.state.rip = start;
                    return (false, Some(Exit::Contended));
                }
                self.instructions += 1;
                self.state.rip = next & mask;
            }
            Trap::FROZEN => {
                self.state.engine.monitor.forget();
                self.state.rip = start;
                self.activity = Activity::Waiting;
                return (false, None);
            }
            Trap::SHUTDOWN => {
                self.activity = Activity::Shutdown;
                return (false, None);
            }
            trap => {
                self.instructions += 1;
                // The mode, and with it the mask, may have changed: what follows is what followed when it was decoded.
                self.state.rip = next & mask;
                match trap {
                    Trap::HALT => self.activity = Activity::Halted,
                    Trap::WAIT => self.activity = Activity::Waiting,
                    _ => {}
                }
            }
        }
        (true, None)
    }

    /// Finds the block at RIP, or decodes it; of one instruction if `single`.
    ///
    /// # Errors
    /// An exception of the fetch.
    fn find(&mut self, single: bool) -> Result<Found, Trap> {
        let state = &mut self.state;
        let rip = state.rip;
        let mut mode = state.mode();
        if single {
            mode |= Mode::SINGLE;
        } else {
            let contexts = &state.engine.contexts;
            if let Some((id, context)) = self.cache.jump(rip, |context| contexts.holds(context))
                && !self.cache.block(id).stale()
            {
                return Ok(Found::Kept(id, context));
            }
        }
        let code = &state.segments[usize::from(seg::CS)];
        let flat = mode.contains(Mode::FLAT_CS);
        let limit = if flat { u64::MAX } else { u64::from(code.limit) };
        let linear = if flat { rip } else { code.base.wrapping_add(rip) & 0xffff_ffff };
        if rip > limit {
            return Err(state.raise(Exception::general_protection(0)));
        }
        let translation = code_translation(state, linear)?;
        let physical = translation.0;
        let place = Place { rip, linear, physical, mode };
        let found = match CodePage::at(state, physical) {
            Some(page) => {
                let host = page.host + (physical & 0xfff) as usize;
                match self.cache.find(host, rip, mode) {
                    Some(id) if self.second_page_is_where_it_was(id, linear)? => Some(id),
                    _ => self.decode(place, Some(page))?,
                }
            }
            None => self.decode(place, None)?,
        };
        let Some(id) = found else {
            let length = self.once.iter().map(|op| u64::from(op.length)).sum::<u64>();
            return self.within(limit, length, single, Found::Once);
        };
        let context = self.state.engine.contexts.current[usize::from(translation.1)];
        let length = u64::from(self.cache.block(id).length);
        let found = self.within(limit, length, single, Found::Kept(id, context))?;
        if let Found::Kept(id, context) = found
            && !single
            && self.cache.block(id).length as u64 == length
            && rip.saturating_add(length - 1) <= limit
        {
            self.cache.remember_jump(rip, context, id);
        }
        Ok(found)
    }

    /// `found` if its code lies within the limit of the code segment; else the first instruction alone, if that does.
    fn within(&mut self, limit: u64, length: u64, single: bool, found: Found) -> Result<Found, Trap> {
        // Without a limit code may wrap around the end of the address space.
        if limit == u64::MAX || self.state.rip + length.saturating_sub(1) <= limit {
            return Ok(found);
        }
        if single {
            return Err(self.state.raise(Exception::general_protection(0)));
        }
        self.find(true)
    }

    /// Whether the second page of a block that has one is still where it was when it was decoded.
    fn second_page_is_where_it_was(&mut self, id: BlockId, linear: u64) -> Result<bool, Trap> {
        let Some(host) = self.cache.block(id).second_page() else { return Ok(true) };
        let mut next = (linear & !0xfff).wrapping_add(0x1000);
        if !self.state.mode().contains(Mode::CODE_64) {
            next &= 0xffff_ffff;
        }
        let (physical, _) = code_translation(&mut self.state, next)?;
        Ok(self.state.engine.ram.find(physical).is_some_and(|range| range.host_of(physical & !0xfff) == host))
    }

    /// Decodes the block at `place`. Gives it if it is kept; otherwise it is in `once`.
    #[cold]
    fn decode(&mut self, place: Place, page: Option<CodePage>) -> Result<Option<BlockId>, Trap> {
        let mut bytes = [0; _];
        let Some(page) = page else {
            self.once.clear();
            decode_block(&mut self.state, place, None, &mut bytes, &mut self.once)?;
            return Ok(None);
        };
        self.cache.make_room();
        let first = self.cache.ops.len();
        loop {
            self.cache.ops.truncate(first);
            let decoded = decode_block(&mut self.state, place, Some(&page), &mut bytes, &mut self.cache.ops)?;
            let fresh = decoded.mark(place, &page);
            for host in fresh.into_iter().flatten() {
                self.state.drop_write_translations_of(host);
                self.member.announce();
            }
            // In this order: whoever can still write unseen is found now, and what was written before is seen below.
            let agreed = self.member.agreed();
            if !decoded.current(place, &page, &bytes) {
                continue;
            }
            if agreed && decoded.in_ram {
                return Ok(Some(self.cache.keep(place, page, decoded, first)));
            }
            self.once.clear();
            self.once.extend(self.cache.ops.drain(first..));
            return Ok(None);
        }
    }
}

/// The physical address that code is fetched from, and whether its page is global.
fn code_translation(state: &mut CpuState, linear: u64) -> Result<(u64, bool), Trap> {
    let known = match state.engine.contexts.find(linear) {
        Some(known) => known,
        None => {
            let made = state.translate_page(linear, Access::Execute, state.privilege())?;
            if made.size > 12 {
                state.engine.large_pages.note(linear, made.size);
            }
            state.engine.contexts.insert(linear, made.address, made.global)
        }
    };
    Ok((known.physical | linear & 0xfff, known.global))
}

/// Executes operations in order.
#[inline(always)]
fn execute(state: &mut CpuState, ops: &[Op]) -> End {
    let mut left = ops;
    while let Some((op, rest)) = left.split_first() {
        if let Err(trap) = (op.handler)(state, op) {
            return End::Trap(trap, *op, ops.len() - left.len());
        }
        if state.engine.stop {
            state.engine.stop = false;
            if !rest.is_empty() {
                return End::Trap(Trap::NEXT, *op, ops.len() - left.len());
            }
        }
        left = rest;
    }
    End::Done
}
