-- Who may connect. A device is never deleted: its name and key stay taken, so that a record names
-- one device for ever and a revoked key can never come back.
CREATE TABLE devices (
    id             INTEGER PRIMARY KEY,
    name           TEXT    NOT NULL UNIQUE,
    user           TEXT,
    groups         TEXT    NOT NULL,           -- JSON array, sorted
    public_key     TEXT    NOT NULL UNIQUE,    -- base64
    preshared_key  TEXT,                       -- base64
    host           INTEGER NOT NULL,           -- number in both pools
    created        INTEGER NOT NULL,           -- seconds since 1970
    revoked        INTEGER,                    -- seconds since 1970
    last_endpoint  TEXT,
    last_handshake INTEGER                     -- seconds since 1970
) STRICT;

-- An address has one living owner.
CREATE UNIQUE INDEX devices_host ON devices (host) WHERE revoked IS NULL;

-- Facts of the gateway itself: `boot` counts its starts.
CREATE TABLE gateway (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
