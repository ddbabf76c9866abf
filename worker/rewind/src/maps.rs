//! `/proc/PID/maps`: what a process has mapped, and what must be done to turn one list into another.
//!
//! Pure: text in, lists out. The kernel splits and joins mappings as it likes, so lists are compared by what holds at each address and not by
//! line. A mapping that grew beside a tracked one is a line of its own; that a range was unmapped and mapped again at the same place cannot
//! be seen here at all: the page map tells ([`crate::kernel::Page::tracked`]), and the caller passes such ranges as `renewed`.

use crate::kernel::Range;

const NO_DEVICE: &str = "00:00";

/// One line of `/proc/PID/maps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) range: Range,
    pub(crate) rights: Rights,
    pub(crate) shared: bool,
    pub(crate) offset: u64,
    /// Device and inode; `None` for memory without a file.
    pub(crate) file: Option<(String, u64)>,
    pub(crate) name: String,
}

/// What a process may do with a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) execute: bool,
}

impl Rights {
    /// As mmap(2) and mprotect(2) take them.
    pub(crate) fn bits(self) -> u64 {
        let bit = |held, bit: libc::c_int| if held { u64::from(bit.unsigned_abs()) } else { 0 };
        bit(self.read, libc::PROT_READ)
            | bit(self.write, libc::PROT_WRITE)
            | bit(self.execute, libc::PROT_EXEC)
    }
}

impl Map {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let rights = fields.next()?.as_bytes();
        let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
        let device = fields.next()?;
        let inode: u64 = fields.next()?.parse().ok()?;
        let name = fields.next().unwrap_or_default().trim_start();
        let hex = |digits| u64::from_str_radix(digits, 16).ok();
        Some(Self {
            range: hex(start)?..hex(end)?,
            rights: Rights {
                read: rights.first() == Some(&b'r'),
                write: rights.get(1) == Some(&b'w'),
                execute: rights.get(2) == Some(&b'x'),
            },
            shared: rights.get(3) == Some(&b's'),
            offset,
            // The first segment of System V has the inode 0.
            file: (inode != 0 || device != NO_DEVICE).then(|| (device.to_owned(), inode)),
            name: name.to_owned(),
        })
    }

    /// The kernel's own pages in the process (`[vdso]`, `[vvar]`, `[vsyscall]`): nothing of the program's is in them.
    pub(crate) fn kernels(&self) -> bool {
        self.name.starts_with("[v")
    }

    /// Private memory without a file.
    pub(crate) fn anonymous(&self) -> bool {
        !self.shared && self.file.is_none() && !self.kernels()
    }

    /// The same object at the same place in it, whatever may be done with it.
    fn like(&self, other: &Self, at: u64) -> bool {
        let place = |map: &Self| map.file.as_ref().map(|_| map.offset + (at - map.range.start));
        self.shared == other.shared
            && self.file == other.file
            && self.kernels() == other.kernels()
            && place(self) == place(other)
    }

    fn joins(&self, next: &Self) -> bool {
        self.range.end == next.range.start
            && self.rights == next.rights
            && self.name == next.name
            && self.like(next, next.range.start)
    }
}

/// Parses the file; `None` if a line is not understood. Neighbours of one kind come as one.
pub(crate) fn parse(text: &str) -> Option<Vec<Map>> {
    let mut maps: Vec<Map> = Vec::new();
    for line in text.lines() {
        let next = Map::parse(line)?;
        match maps.last_mut() {
            Some(last) if last.joins(&next) => last.range.end = next.range.end,
            _ => maps.push(next),
        }
    }
    Some(maps)
}

/// What must be done to a range so that it is as in the baseline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The baseline has nothing there.
    Unmap(Range),
    /// The baseline's mapping (the index is into its list) is gone, or something else lies there.
    Remake(Range, usize),
    /// Only the rights differ.
    Protect(Range, Rights),
}

impl Change {
    fn extended_by(&mut self, next: &Self) -> bool {
        match (self, next) {
            (Self::Unmap(range), Self::Unmap(next)) if range.end == next.start => range.end = next.end,
            (Self::Remake(range, which), Self::Remake(next, other))
                if range.end == next.start && which == other =>
            {
                range.end = next.end;
            }
            (Self::Protect(range, rights), Self::Protect(next, other))
                if range.end == next.start && rights == other =>
            {
                range.end = next.end;
            }
            _ => return false,
        }
        true
    }
}

/// What turns `now` into `baseline`. `renewed`: ranges that look alike and are not the same memory any more. All lists are sorted.
pub(crate) fn changes(baseline: &[Map], now: &[Map], renewed: &[Range]) -> Vec<Change> {
    let ends =
        |maps: &[Map]| maps.iter().flat_map(|map| [map.range.start, map.range.end]).collect::<Vec<_>>();
    let mut edges = ends(baseline);
    edges.extend(ends(now));
    edges.extend(renewed.iter().flat_map(|range| [range.start, range.end]));
    edges.sort_unstable();
    edges.dedup();
    let mut changes: Vec<Change> = Vec::new();
    let (mut in_baseline, mut in_now, mut in_renewed) = (0, 0, 0);
    for pair in edges.windows(2) {
        let range = pair[0]..pair[1];
        while baseline.get(in_baseline).is_some_and(|map| map.range.end <= range.start) {
            in_baseline += 1;
        }
        while now.get(in_now).is_some_and(|map| map.range.end <= range.start) {
            in_now += 1;
        }
        while renewed.get(in_renewed).is_some_and(|renewed| renewed.end <= range.start) {
            in_renewed += 1;
        }
        let was = baseline.get(in_baseline).filter(|map| map.range.start <= range.start);
        let is = now.get(in_now).filter(|map| map.range.start <= range.start);
        let renewed = renewed.get(in_renewed).is_some_and(|renewed| renewed.start <= range.start);
        let change = match (was, is) {
            (None, None) => continue,
            (None, Some(_)) => Change::Unmap(range),
            (Some(_), None) => Change::Remake(range, in_baseline),
            (Some(was), Some(is)) if renewed || !was.like(is, range.start) => {
                Change::Remake(range, in_baseline)
            }
            (Some(was), Some(is)) if was.rights != is.rights => Change::Protect(range, was.rights),
            (Some(_), Some(_)) => continue,
        };
        if !changes.last_mut().is_some_and(|last| last.extended_by(&change)) {
            changes.push(change);
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
55a0e000-55a0f000 r--p 00000000 fe:00 325843                     /usr/bin/victim server
55a0f000-55a10000 rw-p 00001000 fe:00 325843                     /usr/bin/victim server
7fb612cf0000-7fb612cf1000 rw-p 00000000 00:00 0
7fb612cf1000-7fb612cf8000 rw-p 00000000 00:00 0
7fb612d00000-7fb612d01000 rw-s 00000000 00:01 42                 /dev/zero (deleted)
7ffc46fab000-7ffc46fcc000 rw-p 00000000 00:00 0                  [stack]
7ffc46fd0000-7ffc46fd4000 r--p 00000000 00:00 0                  [vvar]
";

    #[test]
    fn lines_are_read_and_neighbours_joined() {
        let maps = parse(TEXT).unwrap();
        assert_eq!(maps.len(), 6);
        assert_eq!(maps[0].name, "/usr/bin/victim server");
        assert_eq!(maps[2].range, 0x7fb6_12cf_0000..0x7fb6_12cf_8000);
        assert!(maps[2].anonymous() && maps[3].shared && maps[5].kernels());
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn another_place_of_the_same_file_is_not_the_same() {
        let was = parse("1000-3000 r--p 00000000 fe:00 7 /f\n").unwrap();
        let is = parse("1000-3000 r--p 00001000 fe:00 7 /f\n").unwrap();
        assert_eq!(changes(&was, &is, &[]), [Change::Remake(0x1000..0x3000, 0)]);
    }

    const PLACES: u64 = 12;

    /// What lies at each of a few pages: nothing, or memory with rights.
    fn layout() -> impl Strategy<Value = Vec<Option<bool>>> {
        prop::collection::vec(prop::option::of(any::<bool>()), PLACES as usize)
    }

    fn maps_of(layout: &[Option<bool>]) -> Vec<Map> {
        let lines = layout.iter().enumerate().filter_map(|(at, writable)| {
            let rights = if (*writable)? { "rw-p" } else { "r--p" };
            Some(format!("{:x}-{:x} {rights} 00000000 00:00 0\n", at * 4096, (at + 1) * 4096))
        });
        parse(&lines.collect::<String>()).unwrap()
    }

    proptest! {
        #[test]
        fn doing_the_changes_gives_the_baseline(was in layout(), is in layout(), renewed in 0..PLACES) {
            let renewed = std::iter::once(renewed * 4096..(renewed + 1) * 4096).collect::<Vec<_>>();
            let (was_maps, is_maps) = (maps_of(&was), maps_of(&is));
            let mut done = is.clone();
            for change in changes(&was_maps, &is_maps, &renewed) {
                let (range, writable) = match &change {
                    Change::Unmap(range) => (range, None),
                    Change::Remake(range, which) => (range, Some(was_maps[*which].rights.write)),
                    Change::Protect(range, rights) => (range, Some(rights.write)),
                };
                for at in range.start / 4096..range.end / 4096 {
                    done[at as usize] = writable;
                }
            }
            prop_assert_eq!(done, was);
        }
    }
}
