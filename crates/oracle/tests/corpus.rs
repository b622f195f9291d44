//! What a processor made of thousands of cases, asked of the interpreter in every way in which it executes code.

use rhea_oracle::{corpus, interpreter::Interpreter};

#[test]
fn the_interpreter_does_what_the_processor_did() {
    let mut interpreter = Interpreter::new().expect("memory");
    let lines = corpus::read().expect("the corpus");
    assert!(lines.len() > 5000, "{}", lines.len());
    let mut faults = Vec::new();
    let mut ways = 0;
    for (file, line) in &lines {
        let (case, expected) = corpus::parse(line).unwrap_or_else(|| panic!("{file}: {line}"));
        let (tried, differences) = corpus::check(&mut interpreter, &case, &expected);
        ways += tried;
        faults.extend(differences.into_iter().map(|(way, it)| format!("{file}: {line}\n  {way}: {it:?}")));
    }
    println!("{} cases, {ways} executions", lines.len());
    assert!(ways > 3 * lines.len());
    assert!(faults.is_empty(), "{} differences, such as\n{}", faults.len(), faults[..faults.len().min(5)].join("\n"));
}
