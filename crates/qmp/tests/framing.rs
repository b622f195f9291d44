//! What a client may send, and what it hears: over a real socket, one fact of the protocol a test.

mod support;

use serde_json::{Value, json};
use support::Monitor;

const PING: &str = "{'execute': 'ping', 'id': 'after'}";

fn pong() -> Value {
    json!({"return": {}, "id": "after"})
}

#[test]
fn greets_at_once_with_version_and_capability() {
    let monitor = Monitor::start();
    assert_eq!(
        monitor.connect().line(),
        r#"{"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": "test"}, "capabilities": ["oob"]}}"#
    );
}

#[test]
fn commands_before_negotiation_are_not_found_after_their_shape_is_checked() {
    let monitor = Monitor::start();
    let mut client = monitor.connect();
    client.line();
    let expecting = "Expecting capabilities negotiation with 'qmp_capabilities'";
    for command in ["ping", "no-such-command"] {
        let answer = client.ask(&format!("{{'execute': '{command}', 'id': 1}}"));
        assert_eq!(answer, json!({"id": 1, "error": {"class": "CommandNotFound", "desc": expecting}}));
    }
    assert_eq!(client.complaint("{'execute': 1}"), "QMP input member 'execute' must be a string");
    assert_eq!(client.complaint("{'exec-oob': 'ping'}"), "QMP input member 'exec-oob' is unexpected");
}

#[test]
fn a_second_negotiation_is_an_error() {
    let monitor = Monitor::start();
    let answer = monitor.client().ask("{'execute': 'qmp_capabilities'}");
    let complete = "Capabilities negotiation is already complete, command ignored";
    assert_eq!(answer, json!({"error": {"class": "CommandNotFound", "desc": complete}}));
}

#[test]
fn faulty_negotiation_leaves_it_open() {
    let monitor = Monitor::start();
    let mut client = monitor.connect();
    client.line();
    let negotiate = |arguments: &str| format!("{{'execute': 'qmp_capabilities', 'arguments': {arguments}}}");
    assert_eq!(
        client.complaint(negotiate("{'enable': ['oob', 'warp']}")),
        "Parameter 'enable[1]' does not accept value 'warp'"
    );
    assert_eq!(
        client.complaint(negotiate("{'enable': 'oob'}")),
        "Invalid parameter type for 'enable', expected: array"
    );
    assert_eq!(
        client.complaint(negotiate("{'enable': [1]}")),
        "Invalid parameter type for 'enable[0]', expected: string"
    );
    assert_eq!(client.complaint(negotiate("{'disable': []}")), "Parameter 'disable' is unexpected");
    assert_eq!(client.ask(PING)["error"]["class"], "CommandNotFound");
    assert_eq!(client.ask(&negotiate("{'enable': []}")), json!({"return": {}}));
    assert_eq!(client.ask(PING), pong());
}

#[test]
fn each_connection_negotiates_anew() {
    let monitor = Monitor::start();
    drop(monitor.client());
    let mut second = monitor.connect();
    second.line();
    assert_eq!(second.ask(PING)["error"]["class"], "CommandNotFound");
}

#[test]
fn shape_errors_name_the_member() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    for (message, complaint) in [
        ("[]", "QMP input must be a JSON object"),
        ("1 ", "QMP input must be a JSON object"),
        ("'execute'", "QMP input must be a JSON object"),
        ("{}", "QMP input lacks member 'execute'"),
        ("{'arguments': {}}", "QMP input lacks member 'execute'"),
        ("{'execute': null}", "QMP input member 'execute' must be a string"),
        ("{'execute': 'ping', 'arguments': []}", "QMP input member 'arguments' must be an object"),
        ("{'execute': 'ping', 'argument': {}}", "QMP input member 'argument' is unexpected"),
        ("{'exec-oob': 'ping'}", "QMP input member 'exec-oob' is unexpected"),
    ] {
        assert_eq!(client.complaint(message), complaint, "{message}");
    }
    let mut client = monitor.oob_client();
    let clash = "QMP input member 'execute' clashes with 'exec-oob'";
    assert_eq!(client.complaint("{'execute': 'ping', 'exec-oob': 'ping'}"), clash);
    assert_eq!(client.complaint("{'exec-oob': 'ping', 'execute': 'ping'}"), clash);
    assert_eq!(client.complaint("{'exec-oob': 7}"), "QMP input member 'exec-oob' must be a string");
    assert_eq!(client.complaint("{'exec-oob': 'echo'}"), "The command echo does not support OOB");
}

#[test]
fn an_unknown_command_is_named() {
    let monitor = Monitor::start();
    let answer = monitor.client().ask("{'execute': 'warp', 'id': 5}");
    let desc = "The command warp has not been found";
    assert_eq!(answer, json!({"id": 5, "error": {"class": "CommandNotFound", "desc": desc}}));
}

#[test]
fn any_id_comes_back_also_with_errors() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    for id in ["null", "0", "-7", "18446744073709551615", "1.5", r#""x""#, "[1, [2]]", r#"{"a": {"b": null}}"#] {
        client.send(format!(r#"{{"execute": "ping", "id": {id}}}"#));
        assert_eq!(client.line(), format!(r#"{{"return": {{}}, "id": {id}}}"#));
        client.send(format!(r#"{{"execute": 1, "id": {id}}}"#));
        let line = client.line();
        assert!(line.starts_with(&format!(r#"{{"id": {id}, "error": {{"class""#)), "{line}");
    }
    assert_eq!(client.ask("{'execute': 'ping'}"), json!({"return": {}}));
}

#[test]
fn a_parse_error_has_no_id() {
    let monitor = Monitor::start();
    let answer = monitor.client().ask("{'id': 1, 'execute': 'ping',}");
    assert_eq!(answer.get("id"), None);
    assert_eq!(answer["error"]["class"], "GenericError");
}

#[test]
fn a_command_is_found_by_its_brackets_however_it_is_cut() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let command = r#"{"execute": "echo", "arguments": {"text": "a\"}é\u00e9", "n": -12}, "id": 1}"#.as_bytes();
    for cut in 1..command.len() {
        client.send(&command[..cut]);
        if cut % 8 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        client.send(&command[cut..]);
        assert_eq!(client.message(), json!({"return": {"text": "a\"}éé", "n": -12}, "id": 1}));
    }
}

#[test]
fn blank_lines_are_ignored() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    client.send("\r\n\n \t \r\r\n");
    assert!(client.silent());
    assert_eq!(client.ask(PING), pong());
}

#[test]
fn pipelined_commands_are_answered_in_order() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let commands: String = (0..2000).map(|id| format!("{{\"execute\": \"ping\", \"id\": {id}}}")).collect();
    client.send(commands);
    for id in 0..2000 {
        assert_eq!(client.message(), json!({"return": {}, "id": id}));
    }
}

#[test]
fn single_quotes_are_as_good_as_double_ones() {
    let monitor = Monitor::start();
    let answer = monitor.client().ask(r#"{'execute': "echo", 'arguments': {'it\'s': 'say "x"'}}"#);
    assert_eq!(answer, json!({"return": {"it's": "say \"x\""}}));
}

#[test]
fn answers_are_ascii() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    client.send("{'execute': 'echo', 'arguments': {'ü': '😀\\u007f\\u0001/'}}");
    assert_eq!(client.line(), r#"{"return": {"\u00fc": "\ud83d\ude00\u007f\u0001/"}}"#);
}

/// Each of these is one error, after which the connection works.
#[test]
fn what_is_not_json_is_refused_once_and_the_next_command_works() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    for message in [
        &b"{'execute': 'ping', 'execute': 'ping'}"[..],
        b"{'execute': 'echo', 'arguments': {'a': 1, 'b': [], 'a': 2}}",
        b"// comment",
        b"# comment",
        b"{'execute': /* comment */ 'ping'}",
        b"\xef\xbb\xbf",
        b"{'execute': 'ping',}",
        b"{'execute': 'echo', 'arguments': {'a': [1,]}}",
        b"{'execute': 'echo', 'arguments': {'a': [,]}}",
        b"{'execute': 'echo', 'arguments': {'a': NaN}}",
        b"{'execute': 'echo', 'arguments': {'a': Infinity}}",
        b"{'execute': 'echo', 'arguments': {'a': -Infinity}}",
        b"{'execute': 'echo', 'arguments': {'a': nul}}",
        b"{execute: 'ping'}",
        b"{'execute' 'ping'}",
        b"{'execute': 'ping' 'id': 1}",
        b"{'execute': 'echo', 'arguments': {'a': +1}}",
        b"{'execute': 'echo', 'arguments': {'a': .5}}",
        b"{'execute': 'echo', 'arguments': {'a': 1.}}",
        b"{'execute': 'echo', 'arguments': {'a': 01}}",
        b"{'execute': 'echo', 'arguments': {'a': -}}",
        b"{'execute': 'echo', 'arguments': {'a': 1e}}",
        b"{'execute': 'echo', 'arguments': {'a': 0x10}}",
        b"{'execute': 'echo', 'arguments': {'a': 1e400}}",
        b"{'execute': 'echo', 'arguments': {'a': -1e400}}",
        b"{'execute': 'echo', 'arguments': {'a': 'x\x01y'}}",
        b"{'execute': 'echo', 'arguments': {'a': 'x\ty'}}",
        b"{'execute': 'echo', 'arguments': {'a': 'x\ny'}}",
        b"{'execute': 'echo', 'arguments': {'a': 'x\0y'}}",
        br"{'execute': 'echo', 'arguments': {'a': '\x41'}}",
        br"{'execute': 'echo', 'arguments': {'a': '\u12g4'}}",
        br"{'execute': 'echo', 'arguments': {'a': '\u+123'}}",
        br"{'execute': 'echo', 'arguments': {'a': '\u12'}}",
        br"{'execute': 'echo', 'arguments': {'a': '\ud800'}}",
        br"{'execute': 'echo', 'arguments': {'a': '\udc00\ud800'}}",
        br"{'execute': 'echo', 'arguments': {'a': '\ud800\u0041'}}",
        b"{'execute': 'echo', 'arguments': {'a': '\xc3'}}",
        b"{'execute': 'echo', 'arguments': {'a': '\xc0\x80'}}",
        b"{'execute': 'echo', 'arguments': {'a': '\xed\xa0\x80'}}",
        b"{'execute': 'echo', 'arguments': {'a': '\xfe'}}",
        b"{'execute': 'echo', 'arguments': {'a': '\xff'}}",
        b"{'execute': ping}",
        b"{'execute': 'ping'",
        b"'unfinished",
        b"]",
        b"}}}}",
        b"]]]]]]]]",
        b"{]",
        b"{'execute': 'echo', 'arguments': {'a': [1}}",
        b":",
        b",",
        b"@#%^&*()",
        b"\x01\x02\x03",
        b"\xff",
        b"hello world",
        b"GET / HTTP/1.1",
    ] {
        let shown = String::from_utf8_lossy(message).into_owned();
        let unfinished = shown == "{'execute': 'ping'";
        let mut sent = message.to_vec();
        // A message without its end is only over when the client says so.
        sent.extend_from_slice(if unfinished { b"\xff\n" } else { b"\r\n" });
        let complaint = client.complaint(sent);
        assert!(complaint.starts_with("JSON parse error, "), "{shown}: {complaint}");
        assert_eq!(client.ask(PING), pong(), "after {shown}");
    }
}

#[test]
fn after_a_lexical_error_in_a_spread_out_message_its_rest_is_passed_over() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    client.send("{\n  \"execute\": @,\n  \"arguments\": [\n],\n  \"id\": 1\n}\n");
    client.send(PING);
    assert!(client.line().contains("JSON parse error, stray '@'"));
    assert_eq!(client.message(), pong());
}

#[test]
fn an_out_of_place_control_byte_makes_the_next_command_work() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    for reset in [&b"\x00"[..], b"\x01", b"\x1b", b"\x0b", b"\xfe", b"\xff", b"\xff\xff\x00"] {
        for begun in ["", "{", "[[[[", "{'execute': 'pi", r"{'a\", "{'a':", "tru", "'", "[1, {'b': [\"x"] {
            let message = [begun.as_bytes(), reset, PING.as_bytes()].concat();
            let complaint = client.complaint(message);
            assert!(complaint.starts_with("JSON parse error, "), "{begun} {reset:?}: {complaint}");
            assert_eq!(client.message(), pong(), "{begun} {reset:?}");
        }
    }
}

#[test]
fn numbers_keep_their_kind() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    client.send(
        "{'execute': 'echo', 'arguments': {'a': [0, -0, -9223372036854775808, 18446744073709551615, 1.0, 1e3, -2.5E-1,
        18446744073709551616, true, false, null]}}",
    );
    assert_eq!(
        client.line(),
        r#"{"return": {"a": [0, 0, -9223372036854775808, 18446744073709551615, 1.0, 1000.0, -0.25, 1.8446744073709552e+19, true, false, null]}}"#
            .replace("e+19", "e19")
            .replace("1.8446744073709552e19", &json!(1.844_674_407_370_955_2e19).to_string())
    );
}

#[test]
fn nesting_has_a_limit_of_1024() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let nested = |depth: usize| format!("{}{}\n", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(client.complaint(nested(1024)), "QMP input must be a JSON object");
    for depth in [1025, 1026, 5000, 200_000] {
        assert_eq!(client.complaint(nested(depth)), "JSON parse error, nesting deeper than 1024");
        assert_eq!(client.ask(PING), pong());
    }
    // Never closed: the next line is a message all the same.
    assert_eq!(client.complaint("[".repeat(3000) + "\n"), "JSON parse error, nesting deeper than 1024");
    assert_eq!(client.ask(PING), pong());
    // As deep as it goes, there and back.
    let id = format!("{}{}", "[".repeat(1023), "]".repeat(1023));
    client.send(format!("{{'execute': 'ping', 'id': {id}}}"));
    assert_eq!(client.line(), format!(r#"{{"return": {{}}, "id": {id}}}"#));
}

#[test]
fn tokens_have_a_limit() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    assert_eq!(client.complaint(format!("[{}1]", "1,".repeat(500_000))), "QMP input must be a JSON object");
    for message in [format!("[{}1]\n", "1,".repeat(600_000)), format!("[{}[]]\n", "[],".repeat(400_000))] {
        assert!(client.complaint(message).contains("tokens"));
        assert_eq!(client.ask(PING), pong());
    }
}

#[test]
fn length_has_a_limit() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let message = format!("{{'execute': 'ping', 'id': 1, 'x': '{}'}}", "x}".repeat(33 << 20));
    assert!(client.complaint(message).contains("longer than 67108864 bytes"));
    assert_eq!(client.ask(PING), pong());
    let message = format!("{{'execute': 'ping',{} 'id': 1}}", " ".repeat(65 << 20));
    assert!(client.complaint(message).contains("longer than 67108864 bytes"));
    assert_eq!(client.ask(PING), pong());
}
