//! Capabilities: what the process has, and what it gives away once it is set up.

use super::HostError;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Whether this thread may change the network: CAP_NET_ADMIN in effect.
#[must_use]
pub fn has_net_admin() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Gives up every capability but CAP_NET_ADMIN, for this thread, for the threads that it starts
/// afterwards and for the programs that they run, and for good (`no_new_privs`). Call it after
/// set-up and before the first other thread: threads that run already keep what they have.
///
/// The user id stays. Root without CAP_DAC_OVERRIDE may write what root owns, so the data
/// directory must belong to the user that runs the gateway.
///
/// # Errors
/// The kernel refused; nothing but the bounding set may have changed.
pub fn drop_privileges() -> Result<(), HostError> {
    let refused = |what: &'static str| {
        move |source: rustix::io::Errno| HostError::Kernel {
            what: what.to_owned(),
            source: source.into(),
        }
    };
    let had = capabilities(None).map_err(refused("reading capabilities"))?;
    let keep = had.permitted & CapabilitySet::NET_ADMIN;

    // The bounding set needs CAP_SETPCAP, so it goes first; without it the other sets must do.
    if had.effective.contains(CapabilitySet::SETPCAP) {
        for bit in 0..64 {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            if capability != CapabilitySet::NET_ADMIN
                && remove_capability_from_bounding_set(capability).is_err()
            {
                break; // Past the last one that this kernel knows.
            }
        }
    }
    // Inheritable and ambient let `nft` work when we are not root.
    set_capabilities(
        None,
        CapabilitySets {
            effective: keep,
            permitted: keep,
            inheritable: keep,
        },
    )
    .map_err(refused("dropping capabilities"))?;
    if !keep.is_empty() {
        configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, true)
            .map_err(refused("keeping CAP_NET_ADMIN for nft"))?;
    }
    set_no_new_privs(true).map_err(refused("setting no_new_privs"))
}

/// Lets programs that this thread runs have CAP_NET_ADMIN when it comes from the file and not
/// from being root. Best effort: without it `nft` says what it misses.
pub(crate) fn share_net_admin() {
    let Ok(mut sets) = capabilities(None) else {
        return;
    };
    if sets.permitted.contains(CapabilitySet::NET_ADMIN) && !rustix::process::geteuid().is_root() {
        sets.inheritable |= CapabilitySet::NET_ADMIN;
        if set_capabilities(None, sets).is_ok() {
            let _ = configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::in_namespace;
    use crate::host::{nft, sysctl};

    #[test]
    fn the_network_may_still_be_changed_and_nothing_else() {
        in_namespace(|| {
            drop_privileges().expect("dropping is always allowed");
            assert!(has_net_admin());
            let sets = capabilities(None).expect("readable");
            assert_eq!(sets.permitted, CapabilitySet::NET_ADMIN);
            sysctl::set("net/ipv4/ip_forward", "1").expect("tear-down writes sysctls");
            if nft::installed() {
                nft::destroy().expect("tear-down removes the table");
            }
            let error = std::os::unix::fs::chown("/proc/self", Some(1), None);
            assert!(error.is_err(), "CAP_CHOWN is gone");
        });
    }
}
