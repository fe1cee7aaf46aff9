//! Announcements of releases and rollout manifests: what is read is written and read again as the same, names
//! legal subjects, and proves nothing.

use nixfleet_bus::{read_release_announcement, read_rollout_announcement};
use nixfleet_proto::fleet::RolloutAnnouncement;
use nixfleet_proto::subject::Names;
use nixfleet_trust::{TrustFile, verify_announced};

use super::{check_subject, key, now, written};

/// An announced release is no release without objects that its key signed.
pub fn release_announcement(data: &[u8]) {
    let Ok(release) = read_release_announcement(data) else {
        return;
    };
    let again = read_release_announcement(&written(&release)).expect("reads back");
    assert_eq!(again, release);
    release.rollouts.values().for_each(check_rollout);
    assert_eq!(release.artifacts().count(), release.rollouts.len() + 1);
    let trust = TrustFile::of(key().public());
    let objects = vec![b"{}".to_vec(); release.artifacts().count()];
    for objects in [Ok(objects), Ok(Vec::new()), Err("missing".to_owned())] {
        assert!(verify_announced(&release, objects, &trust, now()).is_err());
    }
}

/// The announcement of one rollout manifest.
pub fn rollout_announcement(data: &[u8]) {
    let Ok(rollout) = read_rollout_announcement(data) else {
        return;
    };
    let again = read_rollout_announcement(&written(&rollout)).expect("reads back");
    assert_eq!(again, rollout);
    check_rollout(&rollout);
}

fn check_rollout(rollout: &RolloutAnnouncement) {
    check_subject(&Names::new("fleet").manifest_rollout(&rollout.rollout_id));
}
