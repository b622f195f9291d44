//! Measurements of the whole program, beside qemu-system-x86_64 where that is installed, in one run on one machine.
//!
//! Whoever is measured first or last would gain or lose by what else the host does, so that both take turns.

mod dumps;
mod latency;

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::{cargo, guest, root, run as run_command, target};

const USAGE: &str =
    "usage: cargo xtask bench [--quick]\n\n  --quick   leave out what needs a guest: the boot and the dumps";

const QUERY_STATUS: &str = "{\"execute\": \"query-status\"}\r\n";
/// Starts of each program.
const STARTS: usize = 21;
/// Round trips of each program: so many in a row, and so many turns.
const ROUND_TRIPS: usize = 500;
const ROUND_TRIP_TURNS: usize = 10;
/// Commands sent without waiting for answers, and how often.
const PIPELINED: usize = 20_000;
const PIPELINED_TURNS: usize = 3;
/// How long a guest may take to its init.
const BOOT_PATIENCE: Duration = Duration::from_secs(600);
/// What the guest's init prints first.
const INIT_REACHED: &str = "guest: init reached";

/// A program that is measured.
struct Program {
    name: String,
    path: PathBuf,
    /// What it needs besides the common arguments to boot a guest as well as it can.
    boot: &'static [&'static str],
    /// Whether an initial file system is in memory before the machine starts.
    loads_initrd: bool,
}

/// Measures and prints the table.
pub fn run() -> anyhow::Result<()> {
    let mut quick = false;
    for argument in env::args().skip(2) {
        match argument.as_str() {
            "--quick" => quick = true,
            _ => bail!("bench: there is no option '{argument}'\n{USAGE}"),
        }
    }
    run_command(cargo().args(["build", "--release", "--package", "rhea"]))?;
    let mut programs = vec![Program {
        name: "Rhea".to_owned(),
        path: target().join("release/rhea"),
        boot: &["-accel", "tcg"],
        loads_initrd: true,
    }];
    programs.extend(qemu());
    let guest = if quick { None } else { Some(guest::fetch()?) };
    println!("{}", host());
    if programs.len() == 1 {
        println!("qemu-system-x86_64 is not installed: Rhea is measured alone");
    }

    let rows = measure(&programs, guest.as_ref())?;
    print_table(&programs, &rows);
    if root().join("crates/x86/examples/instruction_speed.rs").exists() {
        println!("\nThe processor alone:");
        run_command(cargo().args([
            "run",
            "--release",
            "--quiet",
            "--package",
            "rhea-x86",
            "--example",
            "instruction_speed",
        ]))?;
    }
    Ok(())
}

/// QEMU, with its version in its name.
fn qemu() -> Option<Program> {
    let path = PathBuf::from("qemu-system-x86_64");
    let output = Command::new(&path).arg("--version").output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let name = format!("QEMU {}", version.unwrap_or_default());
    Some(Program { name, path, boot: &["-accel", "tcg,thread=multi", "-cpu", "qemu64"], loads_initrd: false })
}

/// What the figures depend on.
fn host() -> String {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?");
    let model = model.map_or("an unknown model", |(_, model)| model);
    format!("Host: {processors} processors ({model}), load {load} at the beginning")
}

/// Which way is better.
#[derive(Clone, Copy)]
enum Aim {
    /// At most this part of QEMU's figure.
    AtMost(f64),
    /// At least so many times QEMU's figure.
    AtLeast(f64),
    /// At most this, whatever QEMU needs.
    Within(f64),
}

/// What was measured, in the order of the programs.
struct Row {
    what: &'static str,
    unit: &'static str,
    figures: Vec<f64>,
    aim: Aim,
}

fn measure(programs: &[Program], guest: Option<&guest::Guest>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let (greetings, memory) = starts(programs)?;
    rows.push(Row { what: "start to greeting", unit: "ms", figures: greetings, aim: Aim::AtMost(0.25) });
    rows.push(Row { what: "resident memory then", unit: "MB", figures: memory, aim: Aim::AtMost(1.0 / 3.0) });
    let mut sessions = programs.iter().map(Session::start).collect::<Result<Vec<_>, _>>()?;
    for session in &mut sessions {
        session.monitor.negotiate()?;
    }
    let figures = round_trips(&mut sessions)?;
    rows.push(Row { what: "query-status round trip", unit: "us", figures, aim: Aim::AtMost(0.25) });
    let figures = pipelined(&mut sessions)?;
    rows.push(Row { what: "pipelined commands", unit: "/s", figures, aim: Aim::AtLeast(20.0) });
    for session in sessions {
        session.quit()?;
    }
    if let Some(guest) = guest {
        let contents = dumps::Contents::new()?;
        rows.extend(dumps::measure(programs, guest, &contents)?);
        rows.extend(latency::measure(programs, guest, &contents)?);
        // A guest that does not boot is told of in the table: the other figures hold all the same.
        let figures = programs.iter().map(|program| {
            boot(program, guest).unwrap_or_else(|error| {
                eprintln!("{error:#}");
                f64::NAN
            })
        });
        let figures = figures.collect();
        rows.push(Row { what: "boot to init, -smp 2", unit: "s", figures, aim: Aim::Within(25.0) });
        let figures = programs.iter().map(|program| {
            disk(program, guest).unwrap_or_else(|error| {
                eprintln!("{error:#}");
                f64::NAN
            })
        });
        let figures = figures.collect();
        rows.push(Row { what: "disk: 64 MiB written, 16 read", unit: "s", figures, aim: Aim::AtMost(1.0) });
    }
    Ok(rows)
}

/// A connection to a program's monitor.
struct Monitor {
    stream: BufReader<UnixStream>,
    line: String,
}

impl Monitor {
    /// A monitor `id` for the program that `command` is to start, and the socket that it inherits. It is connected as
    /// managers do it: the listening socket is made first and inherited, so that the connection waits for the program and
    /// nobody asks again and again whether it is there.
    fn of(command: &mut Command, id: &str) -> anyhow::Result<(Self, UnixListener)> {
        let path = env::temp_dir().join(format!("rhea-bench-{}-{id}.qmp", std::process::id()));
        let listener = UnixListener::bind(&path).with_context(|| format!("could not listen at {}", path.display()))?;
        let connection = UnixStream::connect(&path);
        fs::remove_file(&path)?;
        let stream = connection?;
        command.arg("-chardev").arg(format!("socket,id={id},fd={},server=on,wait=off", listener.as_raw_fd()));
        command.arg("-mon").arg(format!("chardev={id},mode=control"));
        fcntl_setfd(&listener, FdFlags::empty())?;
        Ok((Self { stream: BufReader::with_capacity(1 << 18, stream), line: String::new() }, listener))
    }

    /// The next message.
    fn receive(&mut self) -> anyhow::Result<&str> {
        self.line.clear();
        ensure!(self.stream.read_line(&mut self.line)? > 0, "the monitor ended");
        Ok(&self.line)
    }

    /// The next message that is no event.
    fn answer(&mut self) -> anyhow::Result<&str> {
        while self.receive()?.contains("\"event\"") {}
        Ok(&self.line)
    }

    fn send(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.stream.get_mut().write_all(text.as_bytes())?)
    }

    fn negotiate(&mut self) -> anyhow::Result<()> {
        let greeting = self.receive()?;
        ensure!(greeting.contains("\"QMP\""), "no greeting: {greeting}");
        self.send("{\"execute\": \"qmp_capabilities\"}\r\n")?;
        let answer = self.receive()?;
        ensure!(answer.contains("\"return\""), "no negotiation: {answer}");
        Ok(())
    }
}

/// A program with a stopped machine and our connection to its monitor.
struct Session {
    child: Child,
    monitor: Monitor,
    /// When the program was started.
    started: Instant,
}

impl Session {
    fn start(program: &Program) -> anyhow::Result<Self> {
        Self::start_with(program, &[])
    }

    /// The same, with arguments of its own.
    fn start_with(program: &Program, arguments: &[OsString]) -> anyhow::Result<Self> {
        let (session, []) = Self::start_watched(program, arguments, [])?;
        Ok(session)
    }

    /// The same, with further monitors.
    fn start_watched<const N: usize>(
        program: &Program,
        arguments: &[OsString],
        further: [&str; N],
    ) -> anyhow::Result<(Self, [Monitor; N])> {
        let mut command = Command::new(&program.path);
        command.args(["-machine", "pc", "-accel", "tcg", "-S", "-nodefaults", "-display", "none"]);
        command.args(arguments).stdin(Stdio::null());
        let (monitor, _listener) = Monitor::of(&mut command, "qmp")?;
        let further: Vec<_> = further.iter().map(|id| Monitor::of(&mut command, id)).collect::<Result<_, _>>()?;
        let (further, _listeners): (Vec<_>, Vec<_>) = further.into_iter().unzip();
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("could not start {}", program.path.display()))?;
        let further = further.try_into().map_err(|_| anyhow::anyhow!("a monitor is missing"))?;
        Ok((Self { child, monitor, started }, further))
    }

    /// Resident memory in megabytes.
    fn memory(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes * 1024.0 / 1e6)
    }

    fn quit(mut self) -> anyhow::Result<()> {
        self.monitor.send("{\"execute\": \"quit\"}\r\n")?;
        let mut rest = Vec::new();
        // A program that resets the connection has ended, too.
        let _ = self.monitor.stream.read_to_end(&mut rest);
        let status = self.child.wait()?;
        ensure!(status.success(), "the program ended with {status}");
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Both fail only for a program that has ended, as it does unless something went wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Medians of the time to the greeting, in milliseconds, and of the memory in use then, in megabytes.
fn starts(programs: &[Program]) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let mut times = vec![Vec::new(); programs.len()];
    let mut sizes = vec![Vec::new(); programs.len()];
    for turn in 0..=STARTS {
        for (index, program) in programs.iter().enumerate() {
            let mut session = Session::start(program)?;
            session.monitor.receive().with_context(|| format!("{} sent no greeting", program.name))?;
            let elapsed = session.started.elapsed();
            let size = session.memory()?;
            // The first turn brings the files into memory.
            if turn > 0 {
                times[index].push(elapsed.as_secs_f64() * 1e3);
                sizes[index].push(size);
            }
            session.monitor.send("{\"execute\": \"qmp_capabilities\"}\r\n")?;
            session.quit()?;
        }
    }
    Ok((times.into_iter().map(median).collect(), sizes.into_iter().map(median).collect()))
}

/// Medians of the time from a command to its answer, in microseconds.
fn round_trips(sessions: &mut [Session]) -> anyhow::Result<Vec<f64>> {
    let mut times = vec![Vec::new(); sessions.len()];
    for _ in 0..ROUND_TRIP_TURNS {
        for (session, times) in sessions.iter_mut().zip(&mut times) {
            for _ in 0..ROUND_TRIPS {
                let start = Instant::now();
                session.monitor.send(QUERY_STATUS)?;
                session.monitor.receive()?;
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            ensure!(session.monitor.line.contains("\"prelaunch\""), "not the answer: {}", session.monitor.line);
        }
    }
    Ok(times.into_iter().map(median).collect())
}

/// Medians of commands a second when answers are not waited for.
fn pipelined(sessions: &mut [Session]) -> anyhow::Result<Vec<f64>> {
    let mut rates = vec![Vec::new(); sessions.len()];
    for _ in 0..PIPELINED_TURNS {
        for (session, rates) in sessions.iter_mut().zip(&mut rates) {
            rates.push(pipeline(session)?);
        }
    }
    Ok(rates.into_iter().map(median).collect())
}

fn pipeline(session: &mut Session) -> anyhow::Result<f64> {
    const BATCH: usize = 100;
    let batch = QUERY_STATUS.repeat(BATCH);
    let mut writer = session.monitor.stream.get_ref().try_clone()?;
    let start = Instant::now();
    let sender = thread::spawn(move || (0..PIPELINED / BATCH).try_for_each(|_| writer.write_all(batch.as_bytes())));
    let mut answers = 0;
    while answers < PIPELINED {
        let bytes = session.monitor.stream.fill_buf()?;
        ensure!(!bytes.is_empty(), "the monitor ended");
        answers += bytes.iter().filter(|byte| **byte == b'\n').count();
        let count = bytes.len();
        session.monitor.stream.consume(count);
    }
    let elapsed = start.elapsed();
    sender.join().map_err(|_| anyhow::anyhow!("the sending thread failed"))??;
    Ok(PIPELINED as f64 / elapsed.as_secs_f64())
}

/// Seconds until the guest's init prints its line.
fn boot(program: &Program, guest: &guest::Guest) -> anyhow::Result<f64> {
    eprintln!("booting on {}", program.name);
    let start = Instant::now();
    let mut child = machine(program, guest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {}", program.path.display()))?;
    let mut console = Console::of(&mut child)?;
    let reached = console.wait_for(INIT_REACHED, start);
    // It has no more to do; it may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
    reached.with_context(|| format!("{} did not boot", program.name))
}

/// Seconds that the guest needs to write and read a raw image of the host past its own cache.
fn disk(program: &Program, guest: &guest::Guest) -> anyhow::Result<f64> {
    eprintln!("writing and reading a disk on {}", program.name);
    let image = env::temp_dir().join(format!("rhea-bench-{}.raw", std::process::id()));
    fs::File::create(&image)?.set_len(64 << 20)?;
    let start = Instant::now();
    let mut child = machine(program, guest)
        .args(["-object", "iothread,id=io0", "-device", "virtio-blk-pci,drive=d0,iothread=io0", "-drive"])
        .arg(format!("if=none,id=d0,format=raw,file={}", image.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {}", program.path.display()))?;
    let measured = (|| {
        let mut input = child.stdin.take().context("no console")?;
        let mut console = Console::of(&mut child)?;
        console.wait_for(INIT_REACHED, start)?;
        // What is awaited is not what is typed, as the console shows that too.
        input.write_all(b"virtio; echo loa''ded\n")?;
        console.wait_for("loaded", start)?;
        let begin = Instant::now();
        input.write_all(
            b"dd if=/dev/zero of=/dev/vda bs=64k count=1024 oflag=direct; dd if=/dev/vda of=/dev/null bs=4k count=4096 iflag=direct; echo do''ne\n",
        )?;
        console.wait_for("done", begin)
    })();
    let _ = child.kill();
    let _ = child.wait();
    fs::remove_file(&image)?;
    measured.with_context(|| format!("{} did not use its disk", program.name))
}

/// A machine with a guest and its console.
fn machine(program: &Program, guest: &guest::Guest) -> Command {
    let mut command = Command::new(&program.path);
    command
        .args(["-machine", "pc", "-m", "512", "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot"])
        .args(program.boot)
        .args(["-serial", "stdio", "-append", "console=ttyS0 quiet"])
        .arg("-kernel")
        .arg(&guest.kernel)
        .arg("-initrd")
        .arg(&guest.initrd);
    command
}

/// What a guest prints.
struct Console {
    chunks: mpsc::Receiver<Vec<u8>>,
    printed: String,
}

impl Console {
    fn of(child: &mut Child) -> anyhow::Result<Self> {
        let output = child.stdout.take().context("no console")?;
        let (sink, chunks) = mpsc::channel();
        thread::spawn(move || read_chunks(output, &sink));
        Ok(Self { chunks, printed: String::new() })
    }

    /// Seconds from `start` until `text` is printed.
    fn wait_for(&mut self, text: &str, start: Instant) -> anyhow::Result<f64> {
        loop {
            if let Some(at) = self.printed.find(text) {
                self.printed.drain(..at + text.len());
                return Ok(start.elapsed().as_secs_f64());
            }
            let lines: Vec<&str> = self.printed.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n");
            match self.chunks.recv_timeout(BOOT_PATIENCE.saturating_sub(start.elapsed())) {
                Ok(chunk) => self.printed.push_str(&String::from_utf8_lossy(&chunk)),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("no '{text}' within {BOOT_PATIENCE:?}; the console ends in\n{tail}")
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("it ended before '{text}'; the console ends in\n{tail}")
                }
            }
        }
    }
}

fn read_chunks(mut source: impl Read, sink: &mpsc::Sender<Vec<u8>>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = source.read(&mut bytes) {
        if sink.send(bytes[..count].to_vec()).is_err() {
            return;
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print_table(programs: &[Program], rows: &[Row]) {
    let names: Vec<&str> = programs.iter().map(|program| program.name.as_str()).collect();
    println!();
    println!("{}", line("", &names, "ratio", "aim", ""));
    for row in rows {
        let shown: Vec<String> = row.figures.iter().map(|figure| format!("{} {}", digits(*figure), row.unit)).collect();
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        let ratio = match row.figures[..] {
            [ours, theirs, ..] if ours.is_finite() && theirs.is_finite() => Some(ours / theirs),
            _ => None,
        };
        let (aim, reached) = match row.aim {
            Aim::AtMost(most) => (format!("<= {}", digits(most)), ratio.map(|ratio| ratio <= most)),
            Aim::AtLeast(least) => (format!(">= {}", digits(least)), ratio.map(|ratio| ratio >= least)),
            Aim::Within(most) => (format!("<= {most} {}", row.unit), row.figures.first().map(|ours| *ours <= most)),
        };
        let verdict = match reached {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "",
        };
        println!("{}", line(row.what, &shown, &ratio.map_or_else(|| "-".to_owned(), digits), &aim, verdict));
    }
}

fn line(what: &str, figures: &[&str], ratio: &str, aim: &str, verdict: &str) -> String {
    let figures: String = figures.iter().map(|figure| format!("{figure:>14}")).collect();
    format!("{what:<26}{figures}{ratio:>10}{aim:>12}  {verdict}").trim_end().to_owned()
}

/// Three digits that count.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size.is_nan() => "failed".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
