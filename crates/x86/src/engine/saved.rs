//! The saved state of a processor with what it does and what is asked of it.

use rhea_core::LoadError;
use serde::{Deserialize, Serialize};

use super::run::{Activity, Vcpu};
use crate::{saved::CpuV1, state::Request};

/// Saved form of [`Vcpu`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VcpuV1 {
    cpu: CpuV1,
    activity: Activity,
    nmi_pending: bool,
    instructions: u64,
    /// Requests that it has not seen yet.
    init: bool,
    startup: Option<u8>,
    a20_masked: bool,
}

/// Requests that are saved; the rest is asked for again where it is needed.
const LASTING: Request = Request::NMI.union(Request::INIT).union(Request::STARTUP);

impl Vcpu {
    /// Its state, between two runs.
    pub fn save(&self) -> VcpuV1 {
        let Self {
            state,
            // Made anew.
            cache: _,
            once: _,
            member: _,
            epoch: _,
            // The same on both sides.
            index: _,
            bootstrap: _,
            stop_at_exceptions: _,
            activity,
            nmi_pending,
            instructions,
        } = self;
        let asked = state.requests.peek();
        VcpuV1 {
            cpu: state.save(),
            activity: *activity,
            nmi_pending: *nmi_pending || asked.contains(Request::NMI),
            instructions: *instructions,
            init: asked.contains(Request::INIT),
            startup: asked.contains(Request::STARTUP).then(|| state.requests.startup_vector()),
            a20_masked: state.requests.a20_masked(),
        }
    }

    /// Takes a saved state, between two runs. The level of its INTR pin is driven by others.
    ///
    /// # Errors
    /// A state that no processor of this model reaches; then nothing has changed.
    pub fn load(&mut self, saved: VcpuV1) -> Result<(), LoadError> {
        let VcpuV1 { cpu, activity, nmi_pending, instructions, init, startup, a20_masked } = saved;
        self.state.load(cpu)?;
        (self.activity, self.nmi_pending, self.instructions) = (activity, nmi_pending, instructions);
        let requests = &self.state.requests;
        // What was asked for while others were loaded is not meant.
        let _ = requests.take(LASTING);
        if init {
            requests.ask(Request::INIT);
        }
        if let Some(vector) = startup {
            requests.ask_startup(vector);
        }
        requests.set_a20(!a20_masked);
        // Memory is another, and so is what code was decoded from it.
        self.memory_changed();
        Ok(())
    }
}
