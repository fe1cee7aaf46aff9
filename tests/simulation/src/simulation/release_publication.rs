//! Publication of releases.

use std::rc::Rc;

use nixfleet_proto::ClosureHash;

use super::Simulation;
use super::closure_behavior::{BAD, FAULT_FREE};
use crate::engine::Rng;
use crate::signed_release::{Release, ReleaseSpec};

impl Simulation {
    /// Publishes the release with this number.
    pub(super) fn publish(&mut self, index: usize) {
        if self.recovery_phase.is_some() {
            return;
        }
        let closures = self.closures(index);
        self.release(&format!("{:08x}", 0xc0de_0000 + index), &closures, false);
    }

    /// Publishes a release on which nothing goes wrong.
    pub(super) fn publish_fault_free(&mut self) {
        let closure = ClosureHash::from(format!("{FAULT_FREE}-system"));
        let closures = vec![closure; self.scenario.shape.hosts.len()];
        self.release("4ea1ed00", &closures, true);
    }

    fn release(&mut self, commit: &str, closures: &[ClosureHash], lenient: bool) {
        let release = Release::build(ReleaseSpec {
            shape: &self.scenario.shape,
            commit,
            closures,
            signed_at: self.env.now.wall(0),
            lenient,
        });
        let release = Rc::new(release);
        self.env
            .trace(format_args!("release {commit} is published"));
        self.env.pinned.extend(release.pinned.clone());
        self.env.invariants.published(&release);
        self.env.releases.push(release);
    }

    /// Hosts with the same tag get the same closure; some closures are bad, some hosts keep theirs.
    fn closures(&self, index: usize) -> Vec<ClosureHash> {
        let mut rng = Rng::new(self.scenario.seed, &format!("release/{index}"));
        let is_bad = rng.chance(350);
        let bad_tag = *rng.pick(&crate::scenario::TAGS);
        let kept_tag = rng.chance(200).then(|| *rng.pick(&crate::scenario::TAGS));
        let shape = &self.scenario.shape;
        let closures = shape.hosts.iter().map(|host| {
            let mark = if is_bad && host.tag == bad_tag {
                BAD
            } else {
                "good"
            };
            if kept_tag == Some(host.tag) && index > 0 {
                // The closure of the release before, so that hosts are unchanged.
                let before = index - 1;
                return ClosureHash::from(format!("good-{before}-{}", host.tag));
            }
            ClosureHash::from(format!("{mark}-{index}-{}", host.tag))
        });
        closures.collect()
    }
}
