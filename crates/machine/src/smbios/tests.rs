//! The tables as software reads them: a parser that follows the specification, and what it finds.

use proptest::prelude::*;

use super::*;

/// A structure as it is found.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    formatted: Vec<u8>,
    strings: Vec<String>,
}

impl Found {
    fn kind(&self) -> u8 {
        self.formatted[0]
    }

    fn number(&self, at: usize, length: usize) -> u64 {
        self.formatted[at..at + length].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// The string whose number is at an offset; empty for none.
    fn string(&self, at: usize) -> &str {
        match usize::from(self.formatted[at]) {
            0 => "",
            number => &self.strings[number - 1],
        }
    }
}

/// All structures up to the end of the table, which must be where the bytes end.
fn parse(mut bytes: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    loop {
        let (formatted, rest) = bytes.split_at(usize::from(bytes[1]));
        assert!(formatted.len() >= 4);
        let end = rest.windows(2).position(|pair| pair == [0, 0]).unwrap();
        let strings = rest[..end].split(|byte| *byte == 0).filter(|text| !text.is_empty());
        let strings = strings.map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
        found.push(Found { formatted: formatted.to_vec(), strings });
        bytes = &rest[end + 2..];
        if formatted[0] == kind::END {
            assert!(bytes.is_empty());
            return found;
        }
    }
}

const ROOM: usize = 0xff80;

fn build(smbios: &Smbios, change: impl FnOnce(&mut Facts<'_>)) -> Result<Tables, SmbiosError> {
    let mut facts = Facts {
        firmware: false,
        sockets: &[true, false],
        cores: 2,
        threads: 3,
        processor: 0x178b_fbfd_0006_0fb1,
        ram: &[(0, 3 << 30), (4 << 30, 2 << 30)],
        most_ram: 9 << 30,
    };
    change(&mut facts);
    smbios.build(&facts, ROOM)
}

fn of(found: &[Found], kind: u8) -> Vec<&Found> {
    found.iter().filter(|structure| structure.kind() == kind).collect()
}

#[test]
fn a_machine_of_which_nothing_is_said_is_told_of_whole() {
    let tables = build(&Smbios::default(), |_| {}).unwrap();
    let found = parse(&tables.structures);
    let kinds: Vec<u8> = found.iter().map(Found::kind).collect();
    assert_eq!(kinds, [0, 1, 3, 4, 4, 16, 17, 19, 19, 32, 127]);
    let mut handles: Vec<u64> = found.iter().map(|structure| structure.number(2, 2)).collect();
    handles.dedup();
    assert_eq!(handles.len(), found.len());
    // The lengths that the specification gives for 2.8 (or the fields that we have of it).
    let lengths: Vec<u8> = found.iter().map(|structure| structure.formatted[1]).collect();
    assert_eq!(lengths, [24, 27, 22, 42, 42, 23, 40, 31, 31, 11, 4]);

    let bios = &found[0];
    assert_eq!((bios.string(4), bios.string(8)), ("Rhea", "11/23/2026"));
    assert_eq!(bios.formatted[0x13] & 0x10, 0x10);
    let system = &found[1];
    assert_eq!([4, 5, 6, 7].map(|at| system.string(at)), ["Rhea", PRODUCT, "pc-i440fx-10.0", ""]);
    let [first, second] = [3, 4].map(|index: usize| &found[index]);
    assert_eq!((first.string(4), second.string(4)), ("CPU 0", "CPU 1"));
    assert_eq!(first.number(8, 8), 0x178b_fbfd_0006_0fb1);
    assert_eq!((first.formatted[0x18], second.formatted[0x18]), (0x41, 0));
    assert_eq!((first.formatted[0x23], first.formatted[0x25]), (2, 6));
    let array = of(&found, kind::MEMORY_ARRAY)[0];
    assert_eq!((array.number(7, 4), array.number(13, 2)), (9 << 20, 1));
    let device = of(&found, kind::MEMORY_DEVICE)[0];
    assert_eq!((device.number(4, 2), device.number(12, 2), device.string(16)), (0x1000, 5 << 10, "DIMM 0"));
    let ranges: Vec<_> =
        of(&found, kind::MAPPED_ADDRESS).iter().map(|range| (range.number(4, 4), range.number(8, 4))).collect();
    assert_eq!(ranges, [(0, (3 << 20) - 1), (4 << 20, (6 << 20) - 1)]);
}

#[test]
fn firmware_tells_of_itself_unless_something_is_said() {
    let firmware = |smbios: &Smbios| parse(&build(smbios, |facts| facts.firmware = true).unwrap().structures);
    assert!(of(&firmware(&Smbios::default()), kind::BIOS).is_empty());
    let bios = BiosNames { vendor: Some("Mine".into()), release: Some((7, 12)), uefi: true, ..BiosNames::default() };
    let found = firmware(&Smbios { bios: Some(bios), ..Smbios::default() });
    let bios = of(&found, kind::BIOS)[0];
    assert_eq!((bios.string(4), bios.string(5), &bios.formatted[0x13..0x16]), ("Mine", "", &[0x1c, 7, 12][..]));
}

#[test]
fn the_first_fields_of_the_identifier_have_their_low_byte_first() {
    let uuid = std::array::from_fn(|i| i as u8);
    let found = parse(&build(&Smbios { uuid, ..Smbios::default() }, |_| {}).unwrap().structures);
    assert_eq!(found[1].formatted[8..24], [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]);
}

#[test]
fn what_is_too_large_for_a_field_is_in_the_one_behind() {
    let smbios = Smbios { entry_point: EntryPoint::Wide, ..Smbios::default() };
    let large = |facts: &mut Facts<'_>| {
        (facts.sockets, facts.cores, facts.threads) = (&[true], 300, 2);
        (facts.ram, facts.most_ram) = (&[(0, 3 << 30), (4 << 30, (5 << 40) - (3 << 30))], 6 << 40);
    };
    let found = parse(&build(&smbios, large).unwrap().structures);
    let processor = of(&found, kind::PROCESSOR)[0];
    assert_eq!((processor.formatted[1], processor.formatted[0x23], processor.formatted[0x25]), (48, 255, 255));
    assert_eq!([0x2a, 0x2c, 0x2e].map(|at| processor.number(at, 2)), [300, 300, 600]);
    let array = of(&found, kind::MEMORY_ARRAY)[0];
    assert_eq!((array.number(7, 4), array.number(13, 2), array.number(15, 8)), (1 << 31, 3, 6 << 40));
    let devices = of(&found, kind::MEMORY_DEVICE);
    let sizes: Vec<_> = devices.iter().map(|device| (device.number(12, 2), device.number(28, 4))).collect();
    assert_eq!(sizes, [(0x7fff, 2 << 20), (0x7fff, 2 << 20), (0x7fff, 1 << 20)]);
    let high = of(&found, kind::MAPPED_ADDRESS)[1];
    assert_eq!((high.number(4, 4), high.number(15, 8)), (u64::from(u32::MAX), 4 << 30));
    // A size that is no number of MiB is told in KiB.
    let small = parse(&build(&Smbios::default(), |facts| facts.ram = &[(0, 0x20_1000)]).unwrap().structures);
    assert_eq!(of(&small, kind::MEMORY_DEVICE)[0].number(12, 2), 0x8000 | 0x804);
}

#[test]
fn a_structure_of_the_users_takes_the_place_of_ours() {
    let given = |bytes: &[u8]| GivenStructure::new(bytes.to_vec());
    let smbios = Smbios {
        given: vec![given(b"\x03\x06\x34\x12\x01\x02mine\0yours\0\0").unwrap(), given(b"\x80\x04\0\x80").unwrap()],
        ..Smbios::default()
    };
    let found = parse(&build(&smbios, |_| {}).unwrap().structures);
    let [chassis] = of(&found, kind::CHASSIS)[..] else { panic!("{found:?}") };
    assert_eq!((chassis.number(2, 2), chassis.string(4), chassis.string(5)), (0x1234, "mine", "yours"));
    assert_eq!(of(&found, 0x80).len(), 1);
    for (bad, reason) in [
        (&b"\x01\x1b\0"[..], "header"),
        (b"\x01\x03\0\0\0\0", "less"),
        (b"\x01\x08\0\0\0\0", "shorter"),
        (b"\x7f\x04\0\0\0\0", "end"),
        (b"\x01\x04\0\0\0\0\x02\x04\0\0\0\0", "behind"),
        (&[4; 0x1_0000], "large"),
    ] {
        assert!(given(bad).unwrap_err().contains(reason), "{bad:x?}");
    }
}

#[test]
fn the_entry_point_leads_to_the_tables_and_sums_to_zero() {
    let sum = |bytes: &[u8]| bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    let tables = build(&Smbios::default(), |_| {}).unwrap();
    let entry = tables.entry_point(0xf_0080);
    let word = |at: usize| usize::from(entry[at]) | usize::from(entry[at + 1]) << 8;
    assert_eq!((entry.len(), &entry[..4], &entry[16..21]), (31, &b"_SM_"[..], &b"_DMI_"[..]));
    assert_eq!((sum(&entry), sum(&entry[16..])), (0, 0));
    assert_eq!(
        (entry[6], entry[7], word(22), entry[24..28].to_vec()),
        (2, 8, tables.structures.len(), vec![0x80, 0, 0xf, 0])
    );
    assert_eq!((word(28), word(8)), (11, tables.largest));
    let wide = build(&Smbios { entry_point: EntryPoint::Wide, ..Smbios::default() }, |_| {}).unwrap();
    let entry = wide.entry_point(0xf_0080);
    assert_eq!((entry.len(), &entry[..5], sum(&entry), entry[7]), (24, &b"_SM3_"[..], 0, 3));
    assert_eq!(entry[12..16], (wide.structures.len() as u32).to_le_bytes());
}

#[test]
fn what_does_not_fit_is_an_error_and_never_cut() {
    let strings =
        |count: usize, length: usize| Smbios { oem_strings: vec!["x".repeat(length); count], ..Smbios::default() };
    assert_eq!(build(&strings(256, 1), |_| {}), Err(SmbiosError::Strings(256)));
    assert!(build(&strings(255, 1), |_| {}).is_ok());
    assert!(matches!(build(&strings(2, 0x8000), |_| {}), Err(SmbiosError::Large { room: ROOM, .. })));
    let narrow = Smbios { entry_point: EntryPoint::Narrow, ..strings(2, 0x8000) };
    assert!(matches!(build(&narrow, |_| {}), Err(SmbiosError::Entry(_))));
    assert_eq!(
        build(&Smbios { oem_strings: vec!["a\0b".into()], ..Smbios::default() }, |_| {}),
        Err(SmbiosError::Zero(11))
    );
}

proptest! {
    #[test]
    fn all_words_are_found_again(
        words in prop::collection::vec("[^\0]{0,40}", 6),
        oem in prop::collection::vec("[^\0]{1,60}", 0..20),
        entry_point in prop::sample::select(vec![EntryPoint::Auto, EntryPoint::Narrow, EntryPoint::Wide]),
    ) {
        let word = |index: usize| Some(words[index].clone());
        let system = Names { manufacturer: word(0), serial: word(1), family: word(2), ..Names::default() };
        let board = Some(Names { asset: word(3), location: word(4), ..Names::default() });
        let memory = MemoryNames { locator_prefix: word(5), ..MemoryNames::default() };
        let smbios = Smbios { system, board, memory, oem_strings: oem.clone(), entry_point, ..Smbios::default() };
        let found = parse(&build(&smbios, |_| {}).unwrap().structures);
        let system = of(&found, kind::SYSTEM)[0];
        prop_assert_eq!([4, 7, 0x1a].map(|at| system.string(at)), [&words[0], &words[1], &words[2]].map(String::as_str));
        let board = of(&found, kind::BOARD)[0];
        prop_assert_eq!([8, 10].map(|at| board.string(at)), [&words[3], &words[4]].map(String::as_str));
        let device = format!("{} 0", words[5]);
        prop_assert_eq!(of(&found, kind::MEMORY_DEVICE)[0].string(16), &device);
        let told = of(&found, kind::OEM_STRINGS).first().map(|structure| structure.strings.clone()).unwrap_or_default();
        prop_assert_eq!(told, oem);
    }

    #[test]
    fn bytes_are_one_structure_or_none(bytes in prop::collection::vec(0_u8..6, 0..40)) {
        if let Ok(given) = GivenStructure::new(bytes.clone()) {
            prop_assert!(given.bytes().starts_with(&bytes));
            let mut all = given.bytes().to_vec();
            all.extend(b"\x7f\x04\0\x7f\0\0");
            prop_assert_eq!(parse(&all).len(), 2);
        }
    }
}
