//! The policy: who may reach what. One pure function, [`Policy::judge`], used by the live path, `test`, `explain` alike.
