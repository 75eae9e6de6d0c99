//! TCP inside the tunnel without a kernel.
#![forbid(unsafe_code)]
