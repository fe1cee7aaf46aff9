//! Opens the rollouts of the current manifests.

use nixfleet_proto::PlanAction;

use super::plan_run::{Admitted, PlanRun};
use crate::gates::freshness;

impl PlanRun<'_> {
    /// Opens the rollout of every fresh manifest with an unknown id. A known ref is never opened again, in
    /// whatever state its rollout is: a new release needs a new commit.
    pub(super) fn plan_opens(&mut self) {
        let Some(release) = self.view.release() else {
            return;
        };
        for (channel, of_channel) in release.manifests() {
            let manifest = &of_channel.manifest;
            let rollout_id = manifest.rollout_id();
            let is_known =
                self.view.rollout(&rollout_id).is_some() || self.view.opening.contains(&rollout_id);
            if is_known || manifest.host_set.is_empty() {
                continue;
            }
            if freshness::check_channel(self.view, channel, self.now).is_err() {
                continue;
            }
            let action = PlanAction::OpenRollout {
                rollout_id,
                channel: channel.clone(),
                target_ref: manifest.channel_ref.clone(),
                manifest_hash: of_channel.hash.clone(),
            };
            if self.admit(&action) == Admitted::Yes {
                self.opens.push(action);
            }
        }
    }
}
