//! Checks of rollout manifests against their fleet.

use nixfleet_proto::fleet::{Fleet, FleetHost, RolloutManifest};

use super::fault::{Fault, Findings, Notice};
use super::fleet_checks::check_schema;
use super::text_checks::check_manifest_texts;
use crate::rollout_manifest::{host_sets, resolve_budgets};
use crate::sorted_lookup::SortedLookup;

/// Compares each manifest with the projection of the fleet for its channel.
pub(super) fn check_manifests<'m>(
    fleet: &Fleet,
    manifests: impl IntoIterator<Item = &'m RolloutManifest>,
    findings: &mut Findings,
) {
    let host_sets = host_sets(fleet);
    let budgets = resolve_budgets(fleet);
    let mut hosts = SortedLookup::hosts(fleet);
    for manifest in manifests {
        let channel = &manifest.channel;
        check_schema(
            format!("rollout manifest of {channel}: meta.schemaVersion"),
            manifest.meta.schema_version,
            findings,
        );
        if host_sets.get(channel) != Some(&manifest.host_set) {
            findings.fault(Fault::HostSetDiffers {
                channel: channel.clone(),
            });
        }
        check_manifest_texts(manifest, findings);
        check_budget_hosts(&mut hosts, manifest, findings);
        if manifest.disruption_budgets != budgets {
            findings.notice(Notice::BudgetsDiffer {
                channel: channel.clone(),
            });
        }
    }
}

fn check_budget_hosts(
    hosts: &mut SortedLookup<'_, &FleetHost>,
    manifest: &RolloutManifest,
    findings: &mut Findings,
) {
    for (index, budget) in manifest.disruption_budgets.iter().enumerate() {
        for hostname in &budget.hosts {
            if hosts.find(hostname).is_none() {
                let channel = &manifest.channel;
                findings.fault(Fault::UnknownHost {
                    at: format!("rollout manifest of {channel}: disruptionBudgets[{index}].hosts"),
                    hostname: hostname.clone(),
                });
            }
        }
    }
}
