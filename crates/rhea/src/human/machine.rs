//! The machine as a whole, for people: run state, processors and what identifies it.

use std::fmt::Write as _;

use rhea_api::{
    cpu, machine, memory, run_state,
    run_state::{RunState, WatchdogAction},
};

use rhea_machine::inspect::{LoadedItem, Place};

use super::table::{Call, Failure, Printed, Work};

// Writing to a string does not fail.

/// `info status`.
pub(super) fn status(call: &Call<'_>) -> Printed {
    let info = run_state::Handler::query_status(&mut call.commands())?;
    let mut text = format!("VM status: {}", if info.running { "running" } else { "paused" });
    if !matches!(info.status, RunState::Running | RunState::Paused) {
        let _ = write!(text, " ({})", info.status.as_str());
    }
    Ok(text + "\r\n")
}

/// `balloon MEGABYTES`.
pub(super) fn balloon(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let megabytes = i64::try_from(call.number(&mut line)?).ok().and_then(|value| value.checked_mul(1 << 20));
    line.end()?;
    let size = megabytes.ok_or_else(|| Failure::new("balloon needs a number of megabytes"))?;
    memory::Handler::balloon(&mut call.commands(), size)?;
    Ok(String::new())
}

/// `info balloon`.
pub(super) fn show_balloon(call: &Call<'_>) -> Printed {
    let actual = memory::Handler::query_balloon(&mut call.commands())?.actual;
    Ok(format!("balloon: actual={}\r\n", actual >> 20))
}

/// `info kvm`.
pub(super) fn kvm(call: &Call<'_>) -> Printed {
    let info = machine::Handler::query_kvm(&mut call.commands())?;
    Ok(format!("kvm support: {}\r\n", if info.enabled { "enabled" } else { "disabled" }))
}

/// `info vm-generation-id`.
pub(super) fn generation_id(call: &Call<'_>) -> Printed {
    Ok(machine::Handler::query_vm_generation_id(&mut call.commands())?.guid + "\r\n")
}

/// `info roms`: what was loaded, and what firmware may fetch.
pub(super) fn roms(call: &Call<'_>) -> Printed {
    let mut text = String::new();
    for item in call.context.machine.loaded_items() {
        let LoadedItem { name, size, place } = item;
        let _ = match place {
            Place::Ram(at) => write!(text, "addr={at:016x} size=0x{size:06x} mem=ram name=\"{name}\"\r\n"),
            Place::Rom(at) => write!(text, "addr={at:016x} size=0x{size:06x} mem=rom name=\"{name}\"\r\n"),
            Place::Offered => write!(text, "fw={name} size=0x{size:06x} name=\"{name}\"\r\n"),
        };
    }
    Ok(text)
}

/// `info name`.
pub(super) fn name(call: &Call<'_>) -> Printed {
    Ok(machine::Handler::query_name(&mut call.commands())?.name.map_or_else(String::new, |name| name + "\r\n"))
}

/// `info uuid`.
pub(super) fn uuid(call: &Call<'_>) -> Printed {
    Ok(machine::Handler::query_uuid(&mut call.commands())?.uuid + "\r\n")
}

/// `cpu NUMBER`.
pub(super) fn choose_processor(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let number = usize::try_from(call.number(&mut line)?).ok();
    line.end()?;
    let known = number.filter(|&number| call.context.machine.processors().get(number).is_some());
    call.chosen.set(known.ok_or_else(|| Failure::new("invalid CPU index"))?);
    Ok(String::new())
}

/// `cpu-add NUMBER`.
pub(super) fn add_processor(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let number = call.number(&mut line)?;
    line.end()?;
    cpu::Handler::cpu_add(&mut call.commands(), number as i64)?;
    Ok(String::new())
}

/// `info cpus`.
pub(super) fn processors(call: &Call<'_>) -> Printed {
    let mut text = String::new();
    for info in cpu::Handler::query_cpus_fast(&mut call.commands())? {
        let mark = if info.cpu_index == call.processor as i64 { '*' } else { ' ' };
        let _ = write!(text, "{mark} CPU #{}: thread_id={}\r\n", info.cpu_index, info.thread_id);
    }
    Ok(text)
}

/// `info hotpluggable-cpus`.
pub(super) fn places(call: &Call<'_>) -> Printed {
    let mut text = "Hotpluggable CPUs:\r\n".to_owned();
    for place in cpu::Handler::query_hotpluggable_cpus(&mut call.commands())? {
        let _ = write!(text, "  type: \"{}\"\r\n  vcpus_count: \"{}\"\r\n", place.r#type, place.vcpus_count);
        if let Some(path) = place.qom_path {
            let _ = write!(text, "  qom_path: \"{path}\"\r\n");
        }
        text.push_str("  CPUInstance Properties:\r\n");
        let parts = [
            ("node-id", place.props.node_id),
            ("socket-id", place.props.socket_id),
            ("core-id", place.props.core_id),
            ("thread-id", place.props.thread_id),
        ];
        for (name, value) in parts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            let _ = write!(text, "    {name}: \"{value}\"\r\n");
        }
    }
    Ok(text)
}

/// `watchdog_action ACTION`.
pub(super) fn set_watchdog_action(call: &Call<'_>) -> Printed {
    let word = call.only_word()?;
    let action = WatchdogAction::ALL.iter().find(|action| action.as_str() == word);
    let action = action.ok_or_else(|| Failure::new(format_args!("invalid parameter value: {word}")))?;
    call.context.machine.set_watchdog_action(*action);
    Ok(String::new())
}

/// Address, size and file.
fn part_of_memory(call: &Call<'_>) -> Result<(i64, i64, String), Failure> {
    let mut line = call.line();
    let (address, size) = (call.number(&mut line)?, call.number(&mut line)?);
    let file = line.need("string")?;
    line.end()?;
    Ok((address as i64, i64::try_from(size).unwrap_or(i64::MAX), file))
}

/// `memsave ADDRESS SIZE FILE`.
pub(super) fn save_virtual(call: &Call<'_>) -> Result<Work, Failure> {
    let (address, size, file) = part_of_memory(call)?;
    let mut commands = call.commands();
    let job = memory::Handler::memsave(&mut commands, address, size, file, Some(call.processor as i64))?;
    Ok(Work::new(commands, job, |()| String::new()))
}

/// `pmemsave ADDRESS SIZE FILE`.
pub(super) fn save_physical(call: &Call<'_>) -> Result<Work, Failure> {
    let (address, size, file) = part_of_memory(call)?;
    let mut commands = call.commands();
    let job = memory::Handler::pmemsave(&mut commands, address, size, file)?;
    Ok(Work::new(commands, job, |()| String::new()))
}
