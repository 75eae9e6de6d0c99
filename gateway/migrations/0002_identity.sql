-- Who may join, whose a device is, and how it stands. Times are seconds since 1970.

-- A device that was there before is approved, and logs in only if gateway.yaml asks for it.
ALTER TABLE devices ADD COLUMN invitation         TEXT;     -- what it joined by; none: added by hand
ALTER TABLE devices ADD COLUMN approved           INTEGER;  -- neither this nor denied: it waits
ALTER TABLE devices ADD COLUMN denied             INTEGER;
ALTER TABLE devices ADD COLUMN needs_login        INTEGER NOT NULL DEFAULT 0;  -- for the first time
ALTER TABLE devices ADD COLUMN session_required   INTEGER NOT NULL DEFAULT 0;  -- for ever
ALTER TABLE devices ADD COLUMN key_since          INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN next_key           TEXT;     -- base64; serves once it was used
ALTER TABLE devices ADD COLUMN next_preshared_key TEXT;     -- base64
ALTER TABLE devices ADD COLUMN next_since         INTEGER;
UPDATE devices SET approved = created, key_since = created;
CREATE UNIQUE INDEX devices_next_key ON devices (next_key) WHERE next_key IS NOT NULL;
CREATE INDEX devices_user ON devices (user);

-- Keys that were a device's once. They never come back.
CREATE TABLE old_keys (
    public_key TEXT    NOT NULL PRIMARY KEY,  -- base64
    device     TEXT    NOT NULL,
    since      INTEGER NOT NULL,
    until      INTEGER NOT NULL
) STRICT;

-- The secret is in the printed string only; here are the public halves of its throw-away keys.
CREATE TABLE invitations (
    id      TEXT    NOT NULL PRIMARY KEY,
    kind    TEXT    NOT NULL CHECK (kind IN ('personal', 'open', 'machine')),
    user    TEXT,
    groups  TEXT    NOT NULL,                 -- JSON array, sorted
    name    TEXT,                             -- of the device to come
    require TEXT    NOT NULL CHECK (require IN ('none', 'login', 'approval')),
    uses    INTEGER NOT NULL,                 -- devices that may join
    used    INTEGER NOT NULL DEFAULT 0,       -- devices that have joined
    used_up INTEGER,                          -- when the last of them did
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    revoked INTEGER,
    made_by TEXT    NOT NULL
) STRICT;

CREATE TABLE invitation_keys (
    public_key TEXT    NOT NULL PRIMARY KEY,  -- base64
    invitation TEXT    NOT NULL REFERENCES invitations (id),
    place      INTEGER NOT NULL
) STRICT;

-- What was answered to whom, so that the same request gets the same answer.
CREATE TABLE redemptions (
    public_key     TEXT    NOT NULL PRIMARY KEY,  -- the device's first, base64
    invitation     TEXT    NOT NULL REFERENCES invitations (id),
    device         TEXT    NOT NULL,
    at             INTEGER NOT NULL,
    kem_key        TEXT,                          -- SHA-256 in hex
    kem_ciphertext TEXT                           -- base64
) STRICT;

CREATE TABLE users (
    name     TEXT    NOT NULL PRIMARY KEY COLLATE NOCASE,
    created  INTEGER NOT NULL,
    disabled INTEGER
) STRICT;
INSERT OR IGNORE INTO users (name, created)
    SELECT user, min(created) FROM devices WHERE user IS NOT NULL GROUP BY user;

-- Who vouches for a user. `subject` is issuer|sub.
CREATE TABLE identities (
    subject TEXT    NOT NULL PRIMARY KEY,
    issuer  TEXT    NOT NULL,
    user    TEXT    NOT NULL COLLATE NOCASE REFERENCES users (name),
    since   INTEGER NOT NULL,
    UNIQUE (user, issuer)
) STRICT;

CREATE TABLE sessions (
    id         TEXT    NOT NULL PRIMARY KEY,
    device     TEXT    NOT NULL,
    user       TEXT    NOT NULL,
    method     TEXT    NOT NULL,
    issuer     TEXT,
    subject    TEXT,
    groups     TEXT    NOT NULL,              -- JSON array, sorted
    amr        TEXT    NOT NULL,              -- JSON array, sorted
    acr        TEXT,
    since      INTEGER NOT NULL,
    until      INTEGER,                       -- none: no end by age
    ended      INTEGER,
    end_reason TEXT
) STRICT;
-- A device has one session in force.
CREATE UNIQUE INDEX sessions_live ON sessions (device) WHERE ended IS NULL;

CREATE TABLE attributes (
    device TEXT    NOT NULL,
    name   TEXT    NOT NULL,
    value  TEXT    NOT NULL,
    until  INTEGER,                           -- none: until it is unset
    set_by TEXT    NOT NULL,
    PRIMARY KEY (device, name)
) STRICT;

CREATE TABLE reports (
    device TEXT    NOT NULL PRIMARY KEY,
    facts  TEXT    NOT NULL,                  -- JSON
    at     INTEGER NOT NULL
) STRICT;

CREATE VIEW devices_now AS
    SELECT devices.*, users.disabled IS NOT NULL AS user_disabled
    FROM devices LEFT JOIN users ON users.name = devices.user;
