//! Trace events: `trace.json`.

use rhea_api::trace::{Handler, TraceEventInfo, TraceEventState};
use rhea_core::trace::{self, TraceEvent};
use rhea_qmp::Error;

use super::Commands;

impl Commands<'_> {
    /// The events that `name` names. None of them is switched for each processor.
    fn traced(&self, name: &str, vcpu: Option<i64>) -> Result<Vec<&'static TraceEvent>, Error> {
        let processor = vcpu.map(|index| {
            let error = |_| Error::generic(format!("invalid vCPU index {index}"));
            self.processor(index).map_err(error)
        });
        processor.transpose()?;
        if trace::is_pattern(name) {
            return Ok(if vcpu.is_some() { Vec::new() } else { trace::matching(name).collect() });
        }
        let event = trace::event(name).ok_or_else(|| Error::generic(format!("unknown event \"{name}\"")))?;
        match vcpu {
            Some(_) => Err(Error::generic(format!("event \"{name}\" is not vCPU-specific"))),
            None => Ok(vec![event]),
        }
    }
}

impl Handler for Commands<'_> {
    fn trace_event_get_state(&mut self, name: String, vcpu: Option<i64>) -> Result<Vec<TraceEventInfo>, Error> {
        let info = |event: &TraceEvent| TraceEventInfo {
            name: event.name().to_owned(),
            state: if event.is_enabled() { TraceEventState::Enabled } else { TraceEventState::Disabled },
            vcpu: false,
        };
        Ok(self.traced(&name, vcpu)?.into_iter().map(info).collect())
    }

    fn trace_event_set_state(
        &mut self,
        name: String,
        enable: bool,
        _ignore_unavailable: Option<bool>,
        vcpu: Option<i64>,
    ) -> Result<(), Error> {
        for event in self.traced(&name, vcpu)? {
            event.set_enabled(enable);
        }
        Ok(())
    }
}
