//! Walks every (state, event) pair of both machines and holds docs/transitions.md against it.
//!
//! `UPDATE_DOCS=1 cargo test -p nixfleet-core transitions` rewrites the page.

use std::fmt::Write as _;
use std::path::Path;

use nixfleet_core::host::{self, AgentEffect, ControlEffect, HostInput, StepCtx};
use nixfleet_core::rollout;
use nixfleet_proto::{
    Effect, HostEventBody, HostState, OnHealthFailure, Reason, RolloutEvent, RolloutState,
};

use crate::sample_records::{
    self, agent_input, at, before, ctx, event, events, record, rollout_events, target,
};

const HEAD: &str = "# Transitions

Generated from the code by `UPDATE_DOCS=1 cargo test -p nixfleet-core transitions`; a test fails when this
page differs from what the machines do. What the words mean: [semantics.md](semantics.md).
";

#[test]
fn the_page_of_transitions_is_what_the_machines_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/transitions.md");
    let page = format!("{HEAD}{}{}", host_page(), rollout_page());
    #[expect(
        clippy::disallowed_methods,
        reason = "a switch of the test, not of the code"
    )]
    let rewrite = std::env::var_os("UPDATE_DOCS").is_some();
    if rewrite {
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == page,
        "docs/transitions.md is not what the machines do; rewrite it with UPDATE_DOCS=1"
    );
}

#[test]
fn the_samples_cover_every_kind() {
    let kinds: Vec<_> = events().iter().map(HostEventBody::name).collect();
    assert_eq!(kinds, HostEventBody::KINDS);
    let mut kinds: Vec<_> = rollout_events().iter().map(|(_, e)| e.name()).collect();
    kinds.dedup();
    assert_eq!(kinds, RolloutEvent::KINDS);
}

/// All inputs of the host machine: the thirteen events, then the two of the planner.
fn host_rows() -> Vec<(&'static str, Option<HostEventBody>)> {
    let mut rows: Vec<_> = events()
        .into_iter()
        .map(|body| (body.name(), Some(body)))
        .collect();
    rows.push(("SoakElapsed", None));
    rows.push(("ConvergeUnchanged", None));
    rows
}

fn host_page() -> String {
    let mut page = "
## Host machine

A state alone: nothing but bookkeeping changes. `–`: rejected as `illegal`. `Soaking → Converged` holds when all
convergence invariants hold; a `Converged` event is otherwise kept as a claim (or rejected as `invariant` on a wrong
closure), a planner input is otherwise rejected as `invariant`. A sequence that is not above the last one is `stale` in
every cell.

"
    .to_owned();
    let states = HostState::ALL.map(HostState::name).join(" | ");
    writeln!(page, "| input | {states} |").unwrap();
    writeln!(page, "|---|{}", "---|".repeat(HostState::ALL.len())).unwrap();
    let mut effects = String::new();
    for (name, body) in host_rows() {
        let mut cells = Vec::new();
        for state in HostState::ALL {
            let cell = host_cell(state, &body, name);
            if let Some((_, control, agent)) = &cell {
                writeln!(
                    effects,
                    "| {name} | {} | {control} | {agent} |",
                    state.name()
                )
                .unwrap();
            }
            cells.push(cell.map_or("–".to_owned(), |(moved, _, _)| moved));
        }
        writeln!(page, "| {name} | {} |", cells.join(" | ")).unwrap();
    }
    write!(
        page,
        "
Effects under `rollback-and-halt` with a known closure to go back to, in order:

| input | state | control side | agent side |
|---|---|---|---|
{effects}
By state of the rollout (`ok`: the table above decides):

| input | {} |
|---|{}
",
        RolloutState::ALL.map(RolloutState::name).join(" | "),
        "---|".repeat(RolloutState::ALL.len())
    )
    .unwrap();
    for (label, state, body) in by_rollout_state() {
        let cells = RolloutState::ALL.map(|rollout_state| {
            let sample = record_for(state);
            let ctx = StepCtx {
                rollout_state,
                ..ctx(OnHealthFailure::RollbackAndHalt)
            };
            let event = body.clone().map(|body| event(11, body));
            let target = target();
            match host::step(&sample, &input(&event, label, &target), &ctx) {
                Ok(_) => "ok",
                Err(_) => "–",
            }
        });
        writeln!(page, "| {label} | {} |", cells.join(" | ")).unwrap();
    }
    page
}

/// One legal example of each kind of input that the rollout's state decides on.
fn by_rollout_state() -> Vec<(&'static str, HostState, Option<HostEventBody>)> {
    let ack = events().swap_remove(0);
    let completed = events().swap_remove(2);
    vec![
        ("DispatchAck", HostState::Pending, Some(ack)),
        ("any other event", HostState::Activating, Some(completed)),
        ("SoakElapsed", HostState::Soaking, None),
        ("ConvergeUnchanged", HostState::Pending, None),
    ]
}

/// A sample whose claim can complete.
fn record_for(state: HostState) -> nixfleet_proto::HostRecord {
    let mut sample = record(state);
    if state == HostState::Soaking {
        let claim = nixfleet_proto::host::ConvergenceClaim {
            converged_at: at(20),
            current_closure: target(),
        };
        sample.convergence_claim = Some(claim.into());
    }
    sample
}

fn input<'a>(
    event: &'a Option<nixfleet_proto::HostEvent>,
    name: &str,
    target: &'a nixfleet_proto::ClosureHash,
) -> HostInput<'a> {
    match event {
        Some(event) => agent_input(event),
        None if name == "SoakElapsed" => HostInput::SoakElapsed,
        None => HostInput::ConvergeUnchanged {
            current_closure: target,
        },
    }
}

/// The move and the effects of both sides; `None` when illegal.
fn host_cell(
    state: HostState,
    body: &Option<HostEventBody>,
    name: &str,
) -> Option<(String, String, String)> {
    let sample = record_for(state);
    let event = body.clone().map(|body| event(11, body));
    let target = target();
    let input = input(&event, name, &target);
    let ctx = ctx(OnHealthFailure::RollbackAndHalt);
    let control = host::step(&sample, &input, &ctx);
    let agent = host::step_agent(&sample, &input, &ctx);
    match (control, agent) {
        (Ok(control), Ok(agent)) => {
            assert_eq!(control.next, agent.next, "{name} in {}", state.name());
            let to = control.next.state;
            let moved = if to == state {
                state.name().to_owned()
            } else {
                format!("{} → {}", state.name(), to.name())
            };
            let control: Vec<_> = control.effects.iter().map(control_name).collect();
            let agent: Vec<_> = agent.effects.iter().map(agent_name).collect();
            Some((moved, join(&control), join(&agent)))
        }
        (Err(control), Err(agent)) => {
            assert_eq!(control, agent);
            assert_eq!(
                control.reason,
                Reason::Illegal,
                "{name} in {}",
                state.name()
            );
            None
        }
        (control, agent) => panic!("the sides differ: {control:?} {agent:?}"),
    }
}

fn join<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    names.join(", ")
}

fn control_name(effect: &ControlEffect) -> &'static str {
    match effect {
        ControlEffect::ReplaceProbeFailures { .. } => "ReplaceProbeFailures",
        ControlEffect::InsertQuarantine { .. } => "InsertQuarantine",
        ControlEffect::RecordTransition { .. } => "RecordTransition",
    }
}

fn agent_name(effect: &AgentEffect) -> String {
    match effect {
        AgentEffect::ResetProbeCache => "ResetProbeCache".to_owned(),
        AgentEffect::EmitEvent { durable: true, .. } => "EmitEvent (durable)".to_owned(),
        AgentEffect::EmitEvent { durable: false, .. } => "EmitEvent".to_owned(),
        AgentEffect::RecordTransition { .. } => "RecordTransition".to_owned(),
        AgentEffect::FireSwitch { closure_hash } => {
            assert_eq!(*closure_hash, target());
            "FireSwitch".to_owned()
        }
        AgentEffect::FireRollbackTo { closure_hash } => {
            assert_eq!(*closure_hash, before());
            "FireRollbackTo".to_owned()
        }
    }
}

fn rollout_page() -> String {
    let mut page = "
## Rollout machine

A state alone: accepted, and the state stays. `–`: rejected as `illegal`. In `WaveAdvanced` and the changes of a host
the columns show a host that is not waived; a waived one changes nothing.

"
    .to_owned();
    let states = RolloutState::ALL.map(RolloutState::name).join(" | ");
    writeln!(page, "| event | {states} |").unwrap();
    writeln!(page, "|---|{}", "---|".repeat(RolloutState::ALL.len())).unwrap();
    let mut effects = String::new();
    for (label, event) in rollout_events() {
        let mut cells = Vec::new();
        for state in RolloutState::ALL {
            let sample = sample_records::rollout_record(state);
            match rollout::step(&sample, &event) {
                Ok(step) => {
                    if !step.effects.is_empty() {
                        let names: Vec<_> = step.effects.iter().map(effect_name).collect();
                        let names = names.join(", ");
                        writeln!(effects, "| {label} | {} | {names} |", state.name()).unwrap();
                    }
                    let to = step.next.state;
                    cells.push(if to == state {
                        state.name().to_owned()
                    } else {
                        format!("{} → {}", state.name(), to.name())
                    });
                }
                Err(rejection) => {
                    assert_eq!(rejection.reason, Reason::Illegal);
                    cells.push("–".to_owned());
                }
            }
        }
        writeln!(page, "| {label} | {} |", cells.join(" | ")).unwrap();
    }
    writeln!(
        page,
        "
Effects, in order:

| event | state | effects |
|---|---|---|
{}",
        effects.trim_end()
    )
    .unwrap();
    page
}

fn effect_name(effect: &Effect) -> String {
    let json = serde_json::to_value(effect).unwrap();
    json["effect"].as_str().unwrap().to_owned()
}
