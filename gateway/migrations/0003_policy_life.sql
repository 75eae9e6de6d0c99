-- The life of a policy, and what verdicts of the past rested on. Times are seconds since 1970.

-- What an admin called a device: `env=prod`.
ALTER TABLE devices     ADD COLUMN labels TEXT NOT NULL DEFAULT '[]';  -- JSON array, sorted
ALTER TABLE invitations ADD COLUMN labels TEXT NOT NULL DEFAULT '[]';  -- of the devices to come

-- Every policy that ever was in force or was to be, by the hash that records name.
CREATE TABLE policies (
    hash   TEXT    NOT NULL PRIMARY KEY,     -- SHA-256 of the source, 64 hex digits
    source TEXT    NOT NULL,
    kept   INTEGER NOT NULL
) STRICT;

-- Which of them was in force when, and who changed it.
CREATE TABLE policy_changes (
    id       INTEGER PRIMARY KEY,
    hash     TEXT    NOT NULL REFERENCES policies (hash),
    at       INTEGER NOT NULL,               -- nanoseconds since 1970
    how      TEXT    NOT NULL CHECK (how IN ('start', 'file', 'apply', 'rollback', 'revert')),
    made_by  TEXT    NOT NULL,
    reason   TEXT,                           -- why it was forced
    cut      INTEGER NOT NULL DEFAULT 0      -- flows
) STRICT;

-- The change that waits for its confirmation; at most one.
CREATE TABLE policy_pending (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    hash     TEXT    NOT NULL,
    previous TEXT    NOT NULL,
    deadline INTEGER NOT NULL,
    token    TEXT    NOT NULL,               -- SHA-256 in hex
    made_by  TEXT    NOT NULL
) STRICT;

-- How each device stood, from when until when: what the `facts` of a record names.
CREATE TABLE facts (
    number      INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL,            -- the first 16 hex digits of the text's SHA-256
    device      TEXT    NOT NULL,
    text        TEXT    NOT NULL,            -- JSON
    since       INTEGER NOT NULL,            -- nanoseconds since 1970
    until       INTEGER,                     -- nanoseconds since 1970; none: still
    reported    INTEGER,                     -- when it reported last; nanoseconds since 1970
    fresh_until INTEGER                      -- until when that report counts; the same
) STRICT;
-- A secret in every such text: the `facts` of a record tells nobody else who it was.
CREATE TABLE facts_salt (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    salt TEXT    NOT NULL
) STRICT;
CREATE INDEX facts_id ON facts (id);
CREATE INDEX facts_device ON facts (device, since);
CREATE UNIQUE INDEX facts_now ON facts (device) WHERE until IS NULL;

-- What the names of targets meant, from when until when.
CREATE TABLE names (
    number    INTEGER PRIMARY KEY,
    name      TEXT    NOT NULL,
    addresses TEXT    NOT NULL,              -- JSON array, sorted
    since     INTEGER NOT NULL,              -- nanoseconds since 1970
    until     INTEGER,                       -- the same; none: still
    checked   INTEGER NOT NULL,              -- when the answer came last, seconds since 1970
    ttl       INTEGER NOT NULL               -- seconds
) STRICT;
CREATE INDEX names_name ON names (name, since);
CREATE UNIQUE INDEX names_now ON names (name) WHERE until IS NULL;

-- Access for a while: asked for, approved or denied, ended. Times are seconds since 1970.
CREATE TABLE grants (
    id          TEXT    NOT NULL PRIMARY KEY, -- random
    device      TEXT    NOT NULL,
    user        TEXT    COLLATE NOCASE,       -- none: a machine
    entry       TEXT    NOT NULL,             -- of the policy's `grants:`
    target      TEXT    NOT NULL,             -- the name of a target, or address:port/protocol
    seconds     INTEGER NOT NULL,             -- how long
    reason      TEXT    NOT NULL,
    break_glass INTEGER NOT NULL DEFAULT 0,
    asked       INTEGER NOT NULL,
    decided     INTEGER,
    decided_by  TEXT,                         -- none: time, or nobody (break-glass)
    approved    INTEGER,                      -- 1 or 0 once decided
    word        TEXT,                         -- what was said to it
    since       INTEGER,
    until       INTEGER,
    ended       INTEGER,                      -- taken back, or over
    ended_by    TEXT,                         -- none: time
    told        INTEGER                       -- 1: the audit log tells that it lives
) STRICT;
CREATE INDEX grants_device ON grants (device, asked);
CREATE INDEX grants_open ON grants (ended) WHERE ended IS NULL;
