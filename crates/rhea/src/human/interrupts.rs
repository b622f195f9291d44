//! `info irq`, `info pic` and `info lapic`: interrupt controllers.

use std::fmt::Write as _;

use rhea_devices::chipset::{
    ioapic::Redirection,
    lapic::{DeliveryMode, InterruptCommand, LocalVector, Vectors},
    pic::ControllerV1,
};

use super::table::{Call, Failure, Printed};

// Writing to a string does not fail.

fn none() -> Failure {
    Failure::new("this machine has no interrupt controller")
}

/// `info irq`: how often each input was asserted.
pub(super) fn counts(call: &Call<'_>) -> Printed {
    call.no_words()?;
    let mut text = String::new();
    for controller in call.context.machine.interrupt_counts() {
        let _ = write!(text, "IRQ statistics for {}:\r\n", controller.name);
        for (input, count) in controller.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let _ = write!(text, "{input:2}: {count}\r\n");
        }
    }
    Ok(text)
}

/// `info pic`.
pub(super) fn controllers(call: &Call<'_>) -> Printed {
    call.no_words()?;
    let state = call.context.machine.interrupt_controllers().ok_or_else(none)?;
    let io_apic = &state.io_apic;
    let mut text = format!("ioapic0: ver=0x20 id=0x{:02x} sel=0x{:02x}\r\n", io_apic.id, io_apic.select);
    let mut served = Vec::new();
    for (pin, &entry) in io_apic.table.iter().enumerate() {
        let fields = Redirection::from(entry);
        if fields.remote_irr() {
            served.push(pin);
        }
        let _ = write!(
            text,
            "  pin {pin:<2} 0x{entry:016x} dest={:x} vec={:<3} {} {:<5} {:<6} {:<6} {}\r\n",
            fields.destination(),
            fields.vector(),
            polarity(fields.active_low()),
            trigger(fields.level()),
            masked(fields.masked()),
            delivery(fields.mode()).to_ascii_lowercase(),
            if fields.logical() { "logical" } else { "physical" },
        );
    }
    let requested = (0..io_apic.table.len()).filter(|pin| (io_apic.lines | io_apic.edges) >> pin & 1 != 0);
    let _ = write!(text, "  IRR      {}\r\n  Remote IRR {}\r\n", listed(requested), listed(served.into_iter()));
    pic(&mut text, 1, &state.pic.slave);
    pic(&mut text, 0, &state.pic.master);
    Ok(text)
}

fn pic(text: &mut String, number: u8, chip: &ControllerV1) {
    let _ = write!(
        text,
        "pic{number}: irr={:02x} imr={:02x} isr={:02x} hprio={} irq_base={:02x} rr_sel={} elcr={:02x} fnm={}\r\n",
        chip.irr,
        chip.imr,
        chip.isr,
        (chip.lowest + 1) & 7,
        chip.vector_base,
        u8::from(chip.read_in_service),
        chip.elcr,
        u8::from(chip.special_fully_nested),
    );
}

fn polarity(active_low: bool) -> &'static str {
    if active_low { "active-lo" } else { "active-hi" }
}

fn trigger(level: bool) -> &'static str {
    if level { "level" } else { "edge" }
}

fn masked(masked: bool) -> &'static str {
    if masked { "masked" } else { "" }
}

fn delivery(mode: u8) -> &'static str {
    match DeliveryMode::decode(mode) {
        DeliveryMode::Fixed => "Fixed",
        DeliveryMode::LowestPriority => "LowPri",
        DeliveryMode::Smi => "SMI",
        DeliveryMode::Reserved => "...",
        DeliveryMode::Nmi => "NMI",
        DeliveryMode::Init => "INIT",
        DeliveryMode::Startup => "SIPI",
        DeliveryMode::ExtInt => "ExtINT",
    }
}

fn listed(numbers: impl Iterator<Item = usize>) -> String {
    let text: String = numbers.map(|number| format!("{number} ")).collect();
    if text.is_empty() { "(none)".to_owned() } else { text.trim_end().to_owned() }
}

/// `info lapic [ID]`: the local APIC of that identification, or of the chosen processor.
pub(super) fn local(call: &Call<'_>) -> Printed {
    let machine = &call.context.machine;
    let mut line = call.line();
    let id = match call.number_if_any(&mut line)? {
        Some(id) => u8::try_from(id).ok(),
        None => machine.processors().get(call.processor).map(|processor| processor.apic_id()),
    };
    line.end()?;
    let id = id.ok_or_else(|| Failure::new("there is no such local APIC"))?;
    let apic = machine.local_apic(id).ok_or_else(|| Failure::new(format_args!("there is no local APIC {id}")))?;
    let state = &apic.state;
    let mut text = format!("dumping local APIC state for CPU {:<2}\r\n\r\n", state.initial_id);
    // In the registers' order: timer, thermal, performance, LINT0, LINT1, error.
    let [timer, thermal, performance, lint0, lint1, error] = state.lvt;
    for (name, entry, is_timer) in [
        ("LVT0", lint0, false),
        ("LVT1", lint1, false),
        ("LVTPC", performance, false),
        ("LVTERR", error, false),
        ("LVTTHMR", thermal, false),
        ("LVTT", timer, true),
    ] {
        vector(&mut text, name, entry, is_timer);
    }
    let divisor = match state.divide & 0xb {
        0xb => 1,
        bits => 2_u32 << (bits & 3 | bits >> 1 & 4),
    };
    let _ = write!(
        text,
        "Timer\t DCR=0x{:x} (divide by {divisor}) initial_count = {} current_count = {}\r\n",
        state.divide, state.initial_count, apic.current_count
    );
    let on = |bit: u32, yes: &'static str, no: &'static str| if state.svr & 1 << bit != 0 { yes } else { no };
    let _ = write!(
        text,
        "SPIV\t 0x{:08x} APIC {}, focus={}, spurious vec {}\r\n",
        state.svr,
        on(8, "enabled", "disabled"),
        on(9, "on", "off"),
        state.svr & 0xff
    );
    let command = InterruptCommand::from(state.icr);
    let _ = write!(
        text,
        "ICR\t 0x{:08x} {} {} {} {}\r\nICR2\t 0x{:08x} {}\r\n",
        state.icr as u32,
        if command.logical() { "logical" } else { "physical" },
        trigger(command.level_trigger()),
        if command.level() { "assert" } else { "de-assert" },
        ["no-shorthand", "self", "all-self", "all"][usize::from(command.shorthand() & 3)],
        (state.icr >> 32) as u32,
        if command.logical() {
            format!("(mask {:08x})", command.destination())
        } else {
            format!("cpu {} (APIC ID)", command.destination() >> if state.base & 1 << 10 != 0 { 0 } else { 24 })
        },
    );
    let _ = write!(
        text,
        "ESR\t 0x{:08x}\r\nISR\t {}\r\nIRR\t {}\r\n\r\nAPR 0x00 TPR 0x{:02x} DFR 0x{:02x} LDR 0x{:02x} PPR 0x{:02x}\r\n",
        state.esr,
        vectors(&state.isr, None),
        vectors(&state.irr, Some(&state.tmr)),
        state.tpr,
        state.dfr >> 28,
        state.ldr,
        apic.processor_priority
    );
    Ok(text)
}

/// An entry of the local vector table.
fn vector(text: &mut String, name: &str, entry: u32, is_timer: bool) {
    let fields = LocalVector::from(entry);
    let mode = delivery(fields.mode());
    let timer = match (is_timer, fields.timer_mode()) {
        (false, _) => "",
        (true, 1) => "periodic",
        (true, 2) => "tsc-deadline",
        (true, _) => "one-shot",
    };
    let _ = write!(
        text,
        "{name}\t 0x{entry:08x} {} {:<5} {:<6} {:<7} {timer:<12} {mode:<6}",
        polarity(fields.active_low()),
        trigger(fields.level()),
        masked(fields.masked()),
        if fields.pending() { "pending" } else { "" },
    );
    if matches!(DeliveryMode::decode(fields.mode()), DeliveryMode::Fixed) {
        let _ = write!(text, " (vec {})", fields.vector());
    }
    text.push_str("\r\n");
}

fn vectors(set: &Vectors, levels: Option<&Vectors>) -> String {
    let one = |vector| {
        let level = levels.is_some_and(|levels| levels.contains(vector));
        format!("{vector} {}", if level { "(level) " } else { "" })
    };
    let text: String = set.iter().map(one).collect();
    if text.is_empty() { "(none)".to_owned() } else { text.trim_end().to_owned() }
}
