//! Whether the file system that holds `/` is encrypted: every disk under it lies below a device
//! of type `crypt` (dm-crypt, so LUKS), as lsblk(8) tells.

use super::{ask, text_of};
use serde::Deserialize;
use std::path::Path;

/// One device, and (lsblk being asked the other way round) what it lies on.
#[derive(Debug, Deserialize)]
struct Device {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    children: Vec<Device>,
}

#[derive(Debug, Deserialize)]
struct Devices {
    blockdevices: Vec<Device>,
}

/// `None` where it cannot be told.
pub(super) fn encrypted() -> Option<bool> {
    let mounts = text_of(Path::new("/proc/self/mountinfo"))?;
    let device = root_device(&mounts)?;
    let list = ask(
        "lsblk",
        &["--json", "--inverse", "--output", "NAME,TYPE", device],
    )?;
    all_encrypted(&list)
}

/// The device under `/`, out of mountinfo (proc_pid_mountinfo(5)); the last mount is on top.
fn root_device(mounts: &str) -> Option<&str> {
    let line = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some("/"))?;
    let (_, after) = line.split_once(" - ")?;
    after
        .split(' ')
        .nth(1)
        .filter(|source| source.starts_with("/dev/"))
}

fn all_encrypted(list: &str) -> Option<bool> {
    let devices: Devices = serde_json::from_str(list).ok()?;
    (!devices.blockdevices.is_empty()).then(|| devices.blockdevices.iter().all(is_encrypted))
}

/// A mirror of which one half is in clear is in clear.
fn is_encrypted(device: &Device) -> bool {
    device.kind == "crypt"
        || !device.children.is_empty() && device.children.iter().all(is_encrypted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_under_the_root_is_found_and_the_last_mount_counts() {
        let mounts = "1 1 0:2 / / rw - rootfs rootfs rw\n\
                      22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/mapper/vg-root rw\n\
                      30 22 254:2 / /home rw shared:2 - ext4 /dev/mapper/vg-home rw\n";
        assert_eq!(root_device(mounts), Some("/dev/mapper/vg-root"));
        let overlay = "9 8 0:5 / / rw - overlay overlay rw,lowerdir=/a\n";
        assert_eq!(root_device(overlay), None);
        assert_eq!(root_device("nonsense"), None);
    }

    #[test]
    fn luks_under_lvm_is_encrypted_and_a_half_clear_mirror_is_not() {
        let luks = r#"{"blockdevices":[{"name":"vg-root","type":"lvm","children":[
            {"name":"sda3_crypt","type":"crypt","children":[{"name":"sda3","type":"part",
            "children":[{"name":"sda","type":"disk"}]}]}]}]}"#;
        assert_eq!(all_encrypted(luks), Some(true));
        let clear = r#"{"blockdevices":[{"name":"vda1","type":"part","children":[
            {"name":"vda","type":"disk"}]}]}"#;
        assert_eq!(all_encrypted(clear), Some(false));
        let mirror = r#"{"blockdevices":[{"name":"md0","type":"raid1","children":[
            {"name":"a","type":"crypt"},{"name":"b","type":"part"}]}]}"#;
        assert_eq!(all_encrypted(mirror), Some(false));
        assert_eq!(all_encrypted(r#"{"blockdevices":[]}"#), None);
        assert_eq!(all_encrypted("lsblk: not a block device"), None);
    }
}
