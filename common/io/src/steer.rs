//! Which worker reads a packet that the host sends into the TUN: an eBPF program picks the queue
//! by the low bits of the last byte of the inner destination. Device addresses are allocated so
//! that these bits are the worker's number, so a worker reads the packets of its own peers and of
//! nobody else's.
//!
//! Without it the kernel picks by a hash until it has seen a flow come in, and forgets that three
//! seconds later. See `docs/adr/008-steering.md`.
//!
//! Loading needs a privilege, attaching does not. So a gateway loads before it drops its
//! privileges, and attaches when there is a TUN:
//!
//! ```no_run
//! # use postern_io::{host, steer::Steering, tun::{Tun, TunOptions}};
//! # fn start(options: &TunOptions, workers: usize) -> Result<(), Box<dyn std::error::Error>> {
//! let steering = Steering::load(workers)?; // or one worker, and say why
//! host::drop_privileges()?;
//! let queues = Tun::open_queues(options, workers)?;
//! steering.attach(&queues[0])?;
//! # Ok(())
//! # }
//! ```

use crate::tun::Tun;
use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Workers that can be steered to, at most. Both steering programs take a power of two.
pub const MAX_WORKERS: usize = 8;

/// Whether this many workers can be steered to: 1, 2, 4 or 8.
#[must_use]
pub fn possible(workers: usize) -> bool {
    workers.is_power_of_two() && workers <= MAX_WORKERS
}

/// The program in the kernel, before and after it is attached.
#[derive(Debug)]
pub struct Steering {
    /// One worker has one queue, and nothing to pick.
    program: Option<OwnedFd>,
}

impl Steering {
    /// Loads the program for so many workers; nothing is loaded for one.
    ///
    /// # Errors
    /// The number is not [`possible`], or the kernel refused: in words that say what it needs.
    pub fn load(workers: usize) -> io::Result<Steering> {
        if !possible(workers) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("cannot steer packets to {workers} workers: use 1, 2, 4 or 8"),
            ));
        }
        if workers == 1 {
            return Ok(Steering { program: None });
        }
        match load(&by_destination(workers)) {
            Ok(program) => Ok(Steering {
                program: Some(program),
            }),
            Err(source) => Err(explain_load(workers, &source)),
        }
    }

    /// Lets the program pick among all queues of this interface, the later opened ones too. The
    /// interface keeps it until it disappears; this value is not needed any longer.
    ///
    /// # Errors
    /// The TUN driver takes no program (Linux before 4.16).
    pub fn attach(&self, tun: &Tun) -> io::Result<()> {
        let Some(program) = &self.program else {
            return Ok(());
        };
        let program: c_int = program.as_raw_fd();
        // SAFETY: TUNSETSTEERINGEBPF reads one int behind the pointer, which lives through the
        // call; both descriptors are open, because the values that own them are borrowed.
        let result = unsafe {
            libc::ioctl(
                tun.fd().as_raw_fd(),
                libc::TUNSETSTEERINGEBPF,
                &raw const program,
            )
        };
        if result < 0 {
            let source = io::Error::last_os_error();
            return Err(io::Error::new(
                source.kind(),
                format!(
                    "cannot steer the packets of interface {}: {source}; it needs a TUN driver with TUNSETSTEERINGEBPF (Linux 4.16)",
                    tun.name()
                ),
            ));
        }
        Ok(())
    }
}

/// Loads and attaches in one go, for a process that has its privileges still.
///
/// # Errors
/// See [`Steering::load`] and [`Steering::attach`].
pub fn by_address(tun: &Tun, workers: usize) -> io::Result<()> {
    Steering::load(workers)?.attach(tun)
}

fn explain_load(workers: usize, source: &io::Error) -> io::Error {
    let help = match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "it needs CAP_BPF (CAP_SYS_ADMIN before Linux 5.8): run as root, or give the service AmbientCapabilities=CAP_NET_ADMIN CAP_BPF; elsewhere, sysctl kernel.unprivileged_bpf_disabled=0 allows it to everybody"
        }
        Some(libc::ENOSYS) => "this kernel has no bpf(2)",
        _ => "the kernel does not take the program",
    };
    io::Error::new(
        source.kind(),
        format!("cannot load what steers packets to {workers} workers: {source}; {help}"),
    )
}

/// One eBPF instruction, as `struct bpf_insn` has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination and source, four bits each.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// With BPF_LD|BPF_ABS a byte of the packet comes into r0 and r6 holds the packet. A byte beyond
/// its end ends the program with 0.
fn by_destination(workers: usize) -> [Instruction; 12] {
    const R6: u8 = 6;
    const R1: u8 = 1;
    let registers = |destination: u8, source: u8| {
        if cfg!(target_endian = "little") {
            source << 4 | destination
        } else {
            destination << 4 | source
        }
    };
    let on_r0 = |code, offset, immediate| Instruction {
        code,
        registers: registers(0, 0),
        offset,
        immediate,
    };
    let byte = |at| on_r0(0x30, 0, at);
    let jump_if = |value, over| on_r0(0x15, over, value);
    let exit = on_r0(0x95, 0, 0);
    let mask = (workers - 1) as i32; // at most 7
    [
        Instruction {
            code: 0xbf, // r6 = r1
            registers: registers(R6, R1),
            offset: 0,
            immediate: 0,
        },
        byte(0),
        on_r0(0x77, 0, 4), // r0 >>= 4: the version
        jump_if(4, 3),
        jump_if(6, 4),
        on_r0(0xb7, 0, 0), // r0 = 0
        exit,
        byte(19),          // IPv4: the end of the destination
        on_r0(0x05, 1, 0), // over the next
        byte(39),          // IPv6: the same
        on_r0(0x57, 0, mask),
        exit,
    ]
}

/// The first members of `union bpf_attr` for BPF_PROG_LOAD. The kernel takes the rest as zero.
#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: c_int = 5;
    const SOCKET_FILTER: u32 = 1;
    let attributes = ProgramLoad {
        program_type: SOCKET_FILTER,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr().expose_provenance() as u64,
        license: c"MIT".as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the pointer and the length are those of a value that lives through the call, and so
    // do the instructions and the string that it points to; the kernel copies all of them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD as c_long,
            &raw const attributes,
            size_of::<ProgramLoad>(),
        )
    };
    let fd = c_int::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just opened it, close-on-exec, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests;
