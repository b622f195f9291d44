//! What holds for every stream of bytes that a client may send. Shared with the fuzz target.

use rhea_qmp::session::{Session, Step};

/// What a session makes of `pieces`, one after another.
fn steps<'a>(session: &mut Session, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Step> {
    let mut steps = Vec::new();
    for mut piece in pieces {
        while let Some(step) = session.next(&mut piece) {
            steps.push(step);
        }
        assert!(piece.is_empty(), "a session left {} bytes", piece.len());
    }
    steps
}

/// `bytes` cut where `cuts`, a seed, says.
fn cut(mut bytes: &[u8], mut cuts: u64) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        cuts = cuts.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let length = usize::try_from(cuts >> 60).map_or(1, |length| length.clamp(1, bytes.len()));
        let (piece, rest) = bytes.split_at(length);
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Checks that cuts do not matter, that there are no more answers than there can be messages, and that a session finds
/// its way back after an out-of-place byte.
pub(crate) fn check(bytes: &[u8], cuts: u64) {
    let mut whole = Session::new();
    let expected = steps(&mut whole, [bytes]);
    assert!(expected.len() <= bytes.len());

    let mut in_pieces = Session::new();
    assert_eq!(steps(&mut in_pieces, cut(bytes, cuts)), expected);
    let mut in_bytes = Session::new();
    assert_eq!(steps(&mut in_bytes, bytes.chunks(1)), expected);

    let reset = if cuts & 1 == 0 { &b"\xff"[..] } else { b"\0" };
    let after = steps(&mut whole, [reset, b"{'execute': 'ping', 'id': 'back'}"]);
    // A message, or a fault, that the reset byte ends; then the command.
    assert!((1..=3).contains(&after.len()), "{after:?}");
    let negotiated = whole.negotiated();
    match after.last() {
        Some(Step::Execute(request)) => assert!(negotiated && request.command == "ping"),
        Some(Step::Answer(answer)) => {
            assert!(!negotiated);
            assert_eq!(answer.id, Some("back".into()));
        }
        None => unreachable!("counted above"),
    }
}
