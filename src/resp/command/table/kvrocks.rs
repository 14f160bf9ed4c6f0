//! Commands that Kvrocks alone has.
//!
//! Its own `COMMAND` flags can't be used for most of them: everything that is not flagged as a
//! write is shown as read-only there, the replication protocol and `NAMESPACE` included.

use super::{ADMIN_ONE_SHOT, APPLIES, READ, READ_ONE_SHOT, REPLICATES, Row, WRITE, WRITE_ONE_SHOT};

pub(super) const ROWS: &[Row] = &[
    // Keys and values.
    ("CAS", WRITE),
    ("CAD", WRITE),
    ("MOVEX", WRITE),
    ("HSETEXPIRE", WRITE),
    ("HRANGEBYLEX", READ),
    ("KMETADATA", READ),
    // Sorted integers.
    ("SICARD", READ),
    ("SIEXISTS", READ),
    ("SIRANGE", READ),
    ("SIREVRANGE", READ),
    ("SIRANGEBYVALUE", READ),
    ("SIREVRANGEBYVALUE", READ),
    ("SIADD", WRITE),
    ("SIREM", WRITE),
    // Search in SQL.
    ("FT.SEARCHSQL", READ),
    ("FT.EXPLAINSQL", READ),
    // Administration. RDB LOAD imports a file, key by key, through the write path.
    ("RDB", WRITE_ONE_SHOT),
    ("COMPACT", ADMIN_ONE_SHOT),
    ("FLUSHBACKUP", ADMIN_ONE_SHOT),
    ("FLUSHMEMTABLE", ADMIN_ONE_SHOT),
    ("FLUSHBLOCKCACHE", ADMIN_ONE_SHOT),
    ("DISK", READ_ONE_SHOT),
    ("STATS", READ_ONE_SHOT),
    // Reads the raw log: no key of it is changed, but one call may return a lot.
    ("POLLUPDATES", READ_ONE_SHOT),
    // Replication.
    ("APPLYBATCH", APPLIES),
    ("_FETCH_META", REPLICATES),
    ("_FETCH_FILE", REPLICATES),
    ("_DB_NAME", REPLICATES),
];
