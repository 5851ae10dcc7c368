//! Which operations on different streams are ordered, and accesses that are not.
//!
//! Operations run in the order of the calls, which is one of the orders that a device may choose. Whether another
//! order was possible is told by vector clocks: each stream counts its operations and knows up to which operation of
//! each other stream it has waited.

use std::collections::HashMap;
use std::ops::Range;

use super::call::Handle;

/// Up to which operation of each stream something has waited.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock(HashMap<Handle, u64>);

impl Clock {
    /// Waits for what `other` has waited for.
    pub(super) fn join(&mut self, other: &Self) {
        for (&stream, &at) in &other.0 {
            let own = self.0.entry(stream).or_default();
            *own = at.max(*own);
        }
    }

    /// The next operation of a stream.
    fn tick(&mut self, stream: Handle) -> u64 {
        let at = self.0.entry(stream).or_default();
        *at += 1;
        *at
    }

    fn knows(&self, access: &Access) -> bool {
        self.0.get(&access.stream).is_some_and(|&at| at >= access.at)
    }
}

/// How an operation uses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A copy from it.
    Read,
    /// A copy to it, its allocation, or its release.
    Write,
    /// A kernel was given its address: it may read or write. Two kernels are given the benefit of the doubt.
    Kernel,
}

impl Use {
    fn conflicts(self, other: Self) -> bool {
        !matches!((self, other), (Self::Read, Self::Read) | (Self::Kernel, Self::Kernel))
    }
}

#[derive(Clone, Debug)]
struct Access {
    stream: Handle,
    at: u64,
    how: Use,
    range: Range<u64>,
    what: &'static str,
}

/// The accesses to an allocation that something may still have to wait for.
#[derive(Clone, Debug, Default)]
pub(super) struct History(Vec<Access>);

impl History {
    /// Adds an access by the operation `at` of a stream. Gives a description of an earlier one that could also have
    /// come later.
    pub(super) fn add(
        &mut self,
        (stream, at): (Handle, u64),
        (clock, host): (&Clock, &Clock),
        how: Use,
        range: Range<u64>,
        what: &'static str,
    ) -> Option<String> {
        self.0.retain(|access| !host.knows(access));
        let overlaps = |a: &Range<u64>| a.start < range.end && range.start < a.end;
        let found =
            self.0.iter().find(|a| !clock.knows(a) && a.how.conflicts(how) && overlaps(&a.range)).map(|access| {
                format!(
                    "{what} in stream {stream:#x} is not ordered after an earlier {} in stream {:#x}: an event or a \
                 synchronisation is missing",
                    access.what, access.stream
                )
            });
        let covers = |a: &Access| range.start <= a.range.start && a.range.end <= range.end;
        self.0.retain(|a| !(a.how == how && covers(a) && clock.knows(a)));
        self.0.push(Access { stream, at, how, range, what });
        found
    }
}

/// The clocks of all streams and of the host.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    streams: HashMap<Handle, Clock>,
    /// All threads of the host count as one.
    pub(super) host: Clock,
    /// Everything that was ever started.
    all: Clock,
}

impl Clocks {
    /// Starts an operation on a stream. Those of the legacy stream, `0`, wait for the streams in `blocking` and
    /// those for it.
    pub(super) fn start(&mut self, stream: Handle, blocking: &[Handle]) -> (Handle, u64) {
        let mut clock = self.streams.remove(&stream).unwrap_or_default();
        clock.join(&self.host);
        if stream == 0 {
            for other in blocking {
                clock.join(self.of(*other));
            }
        } else if blocking.contains(&stream) {
            clock.join(self.of(0));
        }
        let at = clock.tick(stream);
        self.all.join(&clock);
        self.streams.insert(stream, clock);
        (stream, at)
    }

    /// What a stream has waited for.
    pub(super) fn of(&mut self, stream: Handle) -> &Clock {
        self.streams.entry(stream).or_default()
    }

    /// Lets a stream wait for an event.
    pub(super) fn wait(&mut self, stream: Handle, event: &Clock) {
        self.streams.entry(stream).or_default().join(event);
    }

    /// Lets the host wait for a stream.
    pub(super) fn host_waits(&mut self, stream: Handle) {
        let clock = self.of(stream).clone();
        self.host.join(&clock);
    }

    /// Lets the host wait for everything.
    pub(super) fn host_waits_for_all(&mut self) {
        self.host.join(&self.all);
    }

    /// Forgets a stream that was destroyed.
    pub(super) fn forget(&mut self, stream: Handle) {
        self.streams.remove(&stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(clocks: &mut Clocks, history: &mut History, stream: Handle, how: Use) -> bool {
        let tick = clocks.start(stream, &[]);
        let (clock, host) = (clocks.of(stream).clone(), clocks.host.clone());
        history.add(tick, (&clock, &host), how, 0..8, "a test").is_some()
    }

    #[test]
    fn streams_are_ordered_by_events_and_by_the_host() {
        let (mut clocks, mut history) = (Clocks::default(), History::default());
        assert!(!add(&mut clocks, &mut history, 1, Use::Write));
        assert!(!add(&mut clocks, &mut history, 1, Use::Kernel));
        assert!(add(&mut clocks, &mut history, 2, Use::Write));
        let event = clocks.of(2).clone();
        assert!(add(&mut clocks, &mut history, 1, Use::Read));
        clocks.wait(1, &event);
        assert!(!add(&mut clocks, &mut history, 1, Use::Read));
        clocks.host_waits_for_all();
        assert!(!add(&mut clocks, &mut history, 3, Use::Write));
    }
}
