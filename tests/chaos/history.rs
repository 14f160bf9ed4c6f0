//! What clients did to one key, and what they were told: the only thing that the checker sees.
//!
//! Times are nanoseconds of one monotonic clock, read before a request is sent and after its reply
//! was read, so that an operation lies between them wherever it took effect.

/// Operations of one key that the checker takes; whoever records retires a key before that.
pub const OPS_MAX: usize = 128;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Register,
    Counter,
    List,
    Set,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Register, Kind::Counter, Kind::List, Kind::Set];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Set(u32),
    Get,
    GetSet(u32),
    SetNx(u32),
    /// Compare and set, by a script.
    Cas {
        from: u32,
        to: u32,
    },
    /// `INCR` and `INCRBY`.
    Add(i64),
    /// `MULTI`, `INCR`, `INCR`, `EXEC`.
    AddTwice,
    Count,
    Push(u32),
    Pop,
    /// `BRPOP` with a time-out. One that runs out says nothing and is not recorded.
    AwaitPop,
    Range,
    /// Members are small numbers, so that a set is a bit pattern.
    Join(u8),
    Leave(u8),
    Members,
}

impl Call {
    pub fn is_read(self) -> bool {
        matches!(self, Call::Get | Call::Count | Call::Range | Call::Members)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    Value(Option<u32>),
    Number(i64),
    List(Vec<u32>),
    Members(u64),
}

/// How an operation ended, as far as its client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Replied {
        at: u64,
        reply: Reply,
    },
    /// The connection broke: it took effect at any time after its beginning, or never.
    Unknown,
    /// Answered with an error that proves that it took no effect.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub client: usize,
    pub from: u64,
    pub call: Call,
    pub end: End,
}
