//! `rhea schema`: the schema language as a tool, for those who write interfaces and those who compare them.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use rhea_qapi::{Definition, Naming, Page, Schema, Verdict, diff, introspect_with, markdown, pages};

const USAGE: &str = "\
usage: rhea schema COMMAND

  check FILE                 report every fault in the schema whose root is FILE
  introspect FILE [--names]  print the reply of query-qmp-schema; --names keeps the names of types
  doc FILE [DIRECTORY]       print the reference manual, in Markdown; or write it to DIRECTORY, a page a module
  diff OLD NEW               print each change; the status is 1 if a client of OLD could notice
";

/// Runs a subcommand.
///
/// # Errors
/// The command line is wrong, or the output could not be written.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["check", file] => with_schema(file, |schema| print(&summary(schema))),
        ["introspect", file] => introspection(file, Naming::Masked),
        ["introspect", file, "--names"] | ["introspect", "--names", file] => introspection(file, Naming::Kept),
        ["doc", file] => with_schema(file, |schema| print(&markdown(schema))),
        ["doc", file, directory] => with_schema(file, |schema| write_pages(schema, Path::new(directory))),
        ["diff", old, new] => compare(old, new),
        ["help" | "-help" | "--help" | "-h"] => print(USAGE).map(|()| ExitCode::SUCCESS),
        [] => bail!("schema: which command? There are check, introspect, doc and diff"),
        [command @ ("check" | "introspect" | "doc")] => bail!("schema {command}: which FILE?"),
        ["diff", ..] => bail!("schema diff: give two files, OLD and NEW"),
        ["doc", _, _, other, ..] => bail!("schema doc: '{other}' is too much"),
        [command @ ("check" | "introspect"), _, other, ..] => bail!("schema {command}: '{other}' is too much"),
        [other, ..] => bail!("schema: there is no command '{other}'; there are check, introspect, doc and diff"),
    }
}

/// Reads the schema and goes on with it; a schema with faults ends in status 1 instead.
fn with_schema(file: &str, go_on: impl FnOnce(&Schema) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let Some(schema) = load(file) else { return Ok(ExitCode::FAILURE) };
    go_on(&schema)?;
    Ok(ExitCode::SUCCESS)
}

/// The schema, or its faults on the standard error.
fn load(file: &str) -> Option<Schema> {
    match Schema::load(Path::new(file)) {
        Ok(schema) => Some(schema),
        Err(faults) => {
            for fault in &faults {
                eprintln!("{fault}");
            }
            None
        }
    }
}

fn summary(schema: &Schema) -> String {
    let (commands, events) = (schema.commands().count(), schema.events().count());
    let types = schema.definitions().count() - commands - events;
    format!("no faults: {commands} commands, {events} events, {types} types\n")
}

fn introspection(file: &str, naming: Naming) -> anyhow::Result<ExitCode> {
    with_schema(file, |schema| {
        let mut text = serde_json::to_string_pretty(&introspect_with(schema, naming))?;
        text.push('\n');
        print(&text)
    })
}

/// Writes a page a module; the root's is the first, and lists the others.
fn write_pages(schema: &Schema, directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("could not make '{}'", directory.display()))?;
    let root = schema.modules.first().map_or("", |module| module.name.as_str());
    let (mut first, others): (Vec<Page>, Vec<Page>) = pages(schema).into_iter().partition(|page| page.module == root);
    let mut index = first.pop().map_or_else(|| "# Reference\n".to_owned(), |page| page.text);
    index.push_str("\n| page | commands | events |\n|---|---|---|\n");
    for Page { module, title, .. } in &others {
        let here =
            |definition: &Definition| schema.modules.get(definition.module).is_some_and(|own| own.name == *module);
        let commands = schema.commands().filter(|(definition, _)| here(definition)).count();
        let events = schema.events().filter(|(definition, _)| here(definition)).count();
        index.push_str(&format!("| [{title}]({module}.md) | {commands} | {events} |\n"));
    }
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("could not write '{}'", path.display()))
    };
    write("README.md", &index)?;
    others.iter().try_for_each(|page| write(&format!("{}.md", page.module), &page.text))
}

fn compare(old: &str, new: &str) -> anyhow::Result<ExitCode> {
    // Both are read before either ends it: whoever repairs files wants all faults at once.
    let (Some(old), Some(new)) = (load(old), load(new)) else { return Ok(ExitCode::FAILURE) };
    let changes = diff(&old, &new);
    print(&changes.iter().map(|change| format!("{change}\n")).collect::<String>())?;
    let breaks = changes.iter().any(|change| change.verdict == Verdict::Breaking);
    Ok(if breaks { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints to the standard output. A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
