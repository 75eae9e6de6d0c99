//! Records on disk: segments of JSON lines, a hash chain through all of them, and what reads them.
