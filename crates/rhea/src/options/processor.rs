//! `-cpu` and `-smp`: a processor model, what is different about it, and how many there are.

use rhea_machine::{MAX_PROCESSORS, Topology};
use rhea_x86::system::cpuid::{CpuModel, Feature};

use super::{
    keyval::{KeyValues, OptionError},
    typed::split,
};

/// Reads `MODEL[,+FEATURE][,-FEATURE][,PROPERTY=VALUE]...`. As ever with this option, `+` and `-` are done last, and `-`
/// after `+`.
///
/// # Errors
/// A model or property that is not there, or a value that it does not take.
pub fn processor(text: &str) -> Result<CpuModel, OptionError> {
    let wrong = |reason: String| OptionError::about("cpu", reason);
    let (name, rest) = text.split_once(',').unwrap_or((text, ""));
    if text.is_empty() {
        return Err(wrong("option cannot be empty".to_owned()));
    }
    let model = CpuModel::named(name)
        .ok_or_else(|| wrong(format!("unable to find CPU model '{name}'; '-cpu help' lists those there are")))?;
    if model.needs_kvm() {
        return Err(wrong(format!("CPU model '{name}' requires KVM; 'max' has all that there is without it")));
    }
    let (mut plus, mut minus, mut set) = (Vec::new(), Vec::new(), Vec::new());
    for word in split(rest) {
        if let Some(feature) = word.strip_prefix('+') {
            plus.push((feature.to_owned(), "on".to_owned()));
        } else if let Some(feature) = word.strip_prefix('-') {
            minus.push((feature.to_owned(), "off".to_owned()));
        } else {
            let (key, value) = word.split_once('=').unwrap_or((&word, "on"));
            set.push((key.to_owned(), value.to_owned()));
        }
    }
    let mut model = model;
    for (key, value) in set.into_iter().chain(plus).chain(minus) {
        // Underscores stand for dashes, but for those that are in a name.
        let key = if model.property(&key).is_ok() { key } else { key.replace('_', "-") };
        let value = if key == "tsc-freq" { frequency(&value) } else { value };
        let key = if key == "tsc-freq" { "tsc-frequency" } else { &key };
        model.set_word(key, &value).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(model)
}

/// A frequency with a suffix of a thousand, as the old name of the property takes it.
fn frequency(text: &str) -> String {
    let scale = |digits: &str, factor: u64| digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let scaled = [("k", 1_000), ("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)]
        .into_iter()
        .find_map(|(suffix, factor)| scale(text.strip_suffix(suffix)?, factor));
    scaled.map_or_else(|| text.to_owned(), |number| number.to_string())
}

/// The models, and the features that can be switched.
pub fn help() -> String {
    let mut text = "Available CPUs:\n".to_owned();
    for name in CpuModel::names() {
        let description = CpuModel::named(name).map(|model| model.description().into_owned()).unwrap_or_default();
        text += format!("  {name:<20}  {description}").trim_end();
        text.push('\n');
    }
    text += "\nRecognized CPUID flags:";
    let mut names: Vec<_> = Feature::all().map(Feature::name).collect();
    names.sort_unstable();
    let mut column = usize::MAX;
    for name in names {
        if column.saturating_add(name.len()) > 76 {
            text += "\n ";
            column = 1;
        }
        column += 1 + name.len();
        text += &format!(" {name}");
    }
    text.push('\n');
    text
}

/// `-smp`: processors, and how they are grouped.
///
/// # Errors
/// Numbers that contradict each other, or groups that this machine does not have.
pub(super) fn topology(parameters: &KeyValues) -> Result<Topology, OptionError> {
    let get = |key: &str| -> Result<Option<u32>, OptionError> {
        match parameters.number(key) {
            None => Ok(None),
            Some(0) => Err(parameters.error(format!("'{key}' must be 1 at the least"))),
            Some(value) => {
                u32::try_from(value).map(Some).map_err(|_| parameters.error(format!("'{key}={value}' is too large")))
            }
        }
    };
    for key in ["drawers", "books", "dies", "clusters", "modules"] {
        if get(key)?.is_some_and(|value| value != 1) {
            return Err(parameters.error(format!("'{key}' can only be 1")));
        }
    }
    let (cpus, maxcpus) = (get("cpus")?, get("maxcpus")?);
    let (sockets, cores, threads) = (get("sockets")?, get("cores")?, get("threads")?);
    let wanted = maxcpus.or(cpus);
    // What is left out follows from the rest; sockets grow first, as this machine's age has it.
    let (sockets, cores, threads) = match (sockets, cores, threads) {
        (None, cores, threads) => {
            let (cores, threads) = (cores.unwrap_or(1), threads.unwrap_or(1));
            let inside = cores.saturating_mul(threads);
            (wanted.map_or(1, |wanted| (wanted / inside).max(1)), cores, threads)
        }
        (Some(sockets), None, threads) => {
            let threads = threads.unwrap_or(1);
            let others = sockets.saturating_mul(threads);
            (sockets, wanted.map_or(1, |wanted| (wanted / others).max(1)), threads)
        }
        (Some(sockets), Some(cores), threads) => {
            let others = sockets.saturating_mul(cores);
            let threads = threads.unwrap_or_else(|| wanted.map_or(1, |wanted| (wanted / others).max(1)));
            (sockets, cores, threads)
        }
    };
    let product = sockets.saturating_mul(cores).saturating_mul(threads);
    let maxcpus = wanted.unwrap_or(product);
    let cpus = cpus.unwrap_or(maxcpus);
    if product != maxcpus {
        return Err(parameters.error(format!(
            "sockets ({sockets}) * cores ({cores}) * threads ({threads}) is not the number of processors ({maxcpus})"
        )));
    }
    if maxcpus > MAX_PROCESSORS {
        return Err(
            parameters.error(format!("{maxcpus} processors are too many: a machine has up to {MAX_PROCESSORS}"))
        );
    }
    if maxcpus < cpus {
        return Err(parameters.error(format!("maxcpus ({maxcpus}) is less than cpus ({cpus})")));
    }
    Ok(Topology { cpus, sockets, cores, threads })
}

#[cfg(test)]
mod tests {
    use rhea_core::object::Value;

    use super::*;
    use crate::options::parse;

    #[test]
    fn what_is_left_out_of_a_topology_follows_from_the_rest() {
        let topology = |line: &str| {
            parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).map(|settings| settings.topology)
        };
        let of = |cpus, sockets, cores, threads| Ok(Topology { cpus, sockets, cores, threads });
        assert_eq!(topology("-smp 4"), of(4, 4, 1, 1));
        assert_eq!(topology("-smp 2,maxcpus=4,sockets=4,cores=1,threads=1"), of(2, 4, 1, 1));
        assert_eq!(topology("-smp 4,sockets=2"), of(4, 2, 2, 1));
        assert_eq!(topology("-smp cores=2,threads=2"), of(4, 1, 2, 2));
        assert_eq!(topology("-smp sockets=2"), of(2, 2, 1, 1));
        for bad in [
            "-smp 4,sockets=3",
            "-smp 0",
            "-smp 4,maxcpus=2",
            "-smp 2,sockets=2,cores=2",
            "-smp 2,dies=2",
            "-smp 2,modules=2",
        ] {
            assert!(topology(bad).is_err(), "{bad}");
        }
    }

    fn get(text: &str, property: &str) -> Option<Value> {
        processor(text).unwrap().get(property)
    }

    #[test]
    fn features_are_switched_in_every_way_of_saying_so() {
        for (text, property, value) in [
            ("qemu64", "smep", false),
            ("qemu64,+smep", "smep", true),
            ("qemu64,smep", "smep", true),
            ("qemu64,smep=on", "smep", true),
            ("qemu64,-cx16", "cx16", false),
            ("qemu64,cx16=off", "cx16", false),
            ("qemu64,-smep,+smep", "smep", false),
            ("qemu64,+smep,smep=off", "smep", true),
            ("qemu64,sse4_1=on", "sse4.1", true),
            ("qemu64,+sse4-2", "sse4_2", true),
            ("qemu64,hv_relaxed", "hv-relaxed", true),
            ("qemu64,lahf_lm=off", "lahf-lm", false),
            ("max,migratable=off", "invtsc", true),
        ] {
            assert_eq!(get(text, property), Some(Value::Bool(value)), "{text}");
        }
        assert_eq!(get("qemu64,model-id=a,,b,family=6,model=0x5e", "model-id"), Some("a,b".into()));
        assert_eq!(get("qemu64,family=6,model=0x5e", "model"), Some(94.into()));
        assert_eq!(get("qemu64,tsc-freq=2G", "tsc-frequency"), Some(2_000_000_000_u64.into()));
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (text, reason) in [
            ("", "option cannot be empty"),
            ("wings", "unable to find CPU model 'wings'; '-cpu help' lists those there are"),
            ("qemu64-x86_64-cpu", "unable to find CPU model 'qemu64-x86_64-cpu'; '-cpu help' lists those there are"),
            ("host", "CPU model 'host' requires KVM; 'max' has all that there is without it"),
            ("qemu64,+wings", "Property 'qemu64-x86_64-cpu.wings' not found"),
            ("EPYC,wings=3", "Property 'EPYC-x86_64-cpu.wings' not found"),
            ("qemu64,avx=maybe", "Parameter 'avx' expects 'on' or 'off'"),
            ("qemu64,family=x", "Parameter 'family' expects uint64"),
        ] {
            assert_eq!(processor(text).unwrap_err(), OptionError::about("cpu", reason));
        }
    }

    #[test]
    fn help_lists_models_and_features_in_lines_that_fit() {
        let text = help();
        for line in [
            "  qemu64                (alias configured by machine type)",
            "  Nehalem-IBRS          (alias of Nehalem-v2)",
            "  EPYC-v1               AMD EPYC Processor",
            "  base                  base CPU model type with no features enabled",
            "Recognized CPUID flags:",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
        assert!(text.lines().skip_while(|line| !line.starts_with("Recognized")).all(|line| line.len() < 80));
        assert!(
            ["sse4.2", "xsavec", "vmx-xsaves"].iter().all(|name| text.split_whitespace().any(|word| word == *name))
        );
    }
}
